"""Johnson's image transformer, original or with shifts, on photos (Section 3.4, Table 10).

    python train.py --config=configs/style.py:mosaic --workdir=runs/mosaic \\
        --config.data.data_dir=PHOTOS --config.style.folder=STYLES \\
        --config.style.vgg_weights=vgg16-397923af.pth
    shift-jax stylize photo.jpg --model=runs/mosaic --output=stylized.jpg

PHOTOS is a folder of photos, and STYLES one with mosaic.jpg. Options after the colon, separated by
commas: names of styles, original, variant=text, coco and small; `shift_jax.config.style` explains
them. Each evaluation draws pictures, once an epoch with a folder. For a large folder, set for
example --config.eval_every_epochs=0.025.

Reproduces: Table 10 and the pictures of Section 3.4.
Expected: the paper gives pictures and no number.
Size: 302,979 parameters with shifts and 1,974,147 without; 8,468 and 18,937 M multiply-accumulates
at 256×256.
Cost: two epochs of COCO's 82,783 photos are 41,390 steps of 4.
"""

from ml_collections import ConfigDict

from shift_jax.config import nested, style


def get_config(options=""):
    return ConfigDict(nested(style(options)))
