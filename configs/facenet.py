"""FaceNet (Inception-ResNet-v1), which ShiftFaceNet is compared with (Tables 8 and 9).

    python train.py --config=configs/facenet.py --workdir=runs/facenet \\
        --config.data.data_dir=FACES

Options after the colon: paper or small; configs/common.py explains them in `face_embedding`.

Reproduces: Table 8's FaceNet.
Expected: on LFW 97.1 ± 1.3 % and an AUC of 99.5 % in the paper, trained on 10,000 identities of
MS-Celeb-1M, which are not here.
Size: 23,482,624 parameters and 1,418 M multiply-accumulates at 160×160; while it trains 513 more
for each identity, 28,612,624 with 10,000 (28.5 M in the paper).
Cost: not measured on MS-Celeb-1M.
"""

from configs import common


def get_config(options=""):
    return common.face_embedding("facenet", options)
