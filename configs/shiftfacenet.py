"""ShiftFaceNet with softmax and center loss, on a folder of identities (Tables 8 and 9).

    shift-jax align-faces PHOTOS FACES
    python train.py --config=configs/shiftfacenet.py --workdir=runs/faces \\
        --config.data.data_dir=FACES
    python train.py --config=configs/shiftfacenet.py:small --workdir=runs/few \\
        --config.data.data_dir=FACES
    python eval.py --workdir=runs/faces --split=lfw --data_dir=LFW

PHOTOS and FACES have a folder for each person; LFW has the aligned images and pairs.txt. Options
after the colon: paper or small; `shift_jax.config.faces` explains them.

Reproduces: ShiftFaceNet in Table 8.
Expected: on LFW 96.0 ± 1.4 % and an AUC of 99.4 % in the paper, trained on 10,000 identities of
MS-Celeb-1M, which this repository does not have.
Size: 560,160 parameters and 79 M multiply-accumulates at 160×160. Training adds 129 parameters for
each identity (0.78 M in the paper).
Cost: not measured on MS-Celeb-1M.
"""

from ml_collections import ConfigDict

from shift_jax.config import faces, nested


def get_config(options=""):
    return ConfigDict(nested(faces("shiftfacenet", options)))
