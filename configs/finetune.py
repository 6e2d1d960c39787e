"""Any trained classifier on a folder of your own photos: fine-tuning.

    python train.py --config=configs/finetune.py:shiftresnet20-3.cifar100 --workdir=runs/own \\
        --config.data.data_dir=PHOTOS
    shift-jax report --workdir=runs/own
    shift-jax predict photo.jpg --model=runs/own

PHOTOS has the folders train/CLASS and test/CLASS. After the colon stands the name of shipped
weights, or the folder of a run or of a checkpoint, such as one that `shift-jax import-weights`
made; and perhaps, after a comma, image_size=N. --config.init_from="" begins from scratch instead.

Reproduces: nothing in the paper.
Expected: the example in docs/finetuning.md, ten classes with 50 images of 128×128 each, 82.2 % test
top-1, where the same network from scratch reaches 48.4 %.
Cost: 20 epochs of batches of 32; that example, 300 steps, six minutes of CPU time.
"""

from ml_collections import ConfigDict

from shift_jax.config import finetune, nested
from shift_jax.training.initial import trained_config


def get_config(options=""):
    return ConfigDict(nested(finetune(options, trained_config)))
