"""FaceNet (Inception-ResNet-v1), to which Tables 8 and 9 compare ShiftFaceNet.

    python train.py --config=configs/facenet.py --workdir=runs/facenet \\
        --config.data.data_dir=FACES

Options after the colon: paper or small; `shift_jax.config.faces` explains them.

Reproduces: FaceNet in Table 8.
Expected: on LFW 97.1 ± 1.3 % and an AUC of 99.5 % in the paper, trained on 10,000 identities of
MS-Celeb-1M, which this repository does not have.
Size: 23,482,624 parameters and 1,418 M multiply-accumulates at 160×160. Training adds 513
parameters for each identity, 28,612,624 in all with 10,000 (28.5 M in the paper).
Cost: not measured on MS-Celeb-1M.
"""

from ml_collections import ConfigDict

from shift_jax.config import faces, nested


def get_config(options=""):
    return ConfigDict(nested(faces("facenet", options)))
