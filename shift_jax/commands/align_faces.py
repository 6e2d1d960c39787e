"""Finds the faces in a folder of photos with MTCNN and writes them out aligned.

    shift-jax align-faces SRC DST --image_size=160

SRC may hold folders to any depth, as SRC/NAME/NAME_0001.jpg or SRC/NAME/VIDEO/0.jpg. DST gets the
same names, ending in .jpg: square color JPEGs of quality 95 with eyes, nose and mouth at fixed
places. A JPEG of an aligned face is a third the size of a PNG and reads as fast. Of two photos
whose names differ only in the extension, the second gets its whole name, as in b.png.jpg.

DST/align_report.csv says what became of each photo: aligned, cropped, no_face or unreadable, the
number of faces, the confidence and the distance between the eyes. The same command continues where
it was stopped: aligned photos are left as they are; those without a face are tried again only with
--no_face=centre_crop or a lower --min_confidence; unreadable ones always.

One process uses little more than one core: start several, on SRC/A and DST/A, SRC/B and DST/B. The
environment variable TF_ENABLE_ONEDNN_OPTS=1 saves a third of the time, but TensorFlow then prints
messages.
"""

from argparse import Namespace

from shift_jax.commands.line import PATH, CommandLine, number

line = CommandLine(
    "align-faces",
    "Name a folder of photos and one for the aligned faces",
    "SRC DST --image_size=160",
)
line.add("source", "Folder of photos.", PATH, metavar="SRC")
line.add("target", "Folder for the aligned faces.", PATH, metavar="DST")
line.add("--image_size", "Side of the aligned faces.", number(int), default=160, metavar="PIXELS")
line.add(
    "--face",
    "Which face of a photo with several.",
    choices=("largest", "most_central"),
    default="largest",
)
line.add(
    "--no_face",
    "What to do with photos without a face; centre_crop takes their central square.",
    choices=("skip", "centre_crop"),
    default="skip",
)
line.add(
    "--min_confidence",
    "How sure MTCNN must be of a face, above 0 and below 1.",
    number(float),
    default=0.9,
)


def main(options: Namespace) -> None:
    from shift_jax.data.faces.align_faces import FaceDetector, align_folder, summary

    rows = align_folder(
        options.source,
        options.target,
        options.image_size,
        FaceDetector(options.min_confidence),
        face=options.face,
        crop_without_face=options.no_face == "centre_crop",
    )
    print(summary(rows, options.target))


if __name__ == "__main__":
    line.run(main)
