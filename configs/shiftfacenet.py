"""ShiftFaceNet with softmax and center loss, on a folder of identities (Tables 8 and 9).

    python -m shift_jax.data.align_faces PHOTOS FACES
    python train.py --config=configs/shiftfacenet.py --workdir=runs/faces \\
        --config.data.data_dir=FACES
    python train.py --config=configs/shiftfacenet.py:small --workdir=runs/few \\
        --config.data.data_dir=FACES
    python eval.py --workdir=runs/faces --split=lfw --data_dir=LFW

PHOTOS and FACES have a folder for each person, LFW has the aligned images and pairs.txt. Options
after the colon: paper or small; configs/common.py explains them in `face_embedding`.

Reproduces: Table 8's ShiftFaceNet.
Expected: on LFW 96.0 ± 1.4 % and an AUC of 99.4 % in the paper, trained on 10,000 identities of
MS-Celeb-1M, which are not here.
Size: 560,160 parameters and 79 M multiply-accumulates at 160×160; while it trains 129 more for each
identity (0.78 M in the paper).
Cost: not measured on MS-Celeb-1M.
"""

from configs import common


def get_config(options=""):
    return common.face_embedding("shiftfacenet", options)
