"""Rows for pages of results, and what reads the pages."""

CSV = """\
model,expansion,reduction,allocation,seed,params,macs,last_top1,best_top1,epochs,minutes,device,commit
shiftresnet20,3,,,1,101492,16439552,65.5,66.2,164,30.06,GPU A,abc1234
shiftresnet20,3,,,0,101492,16439552,64.5,65.2,164,30,GPU A,abc1234
shiftresnet20,1,,,0,40756,5953792,54.04,54.06,164,20.5,GPU A,abc1234
shiftresnet56,9,,,0,877748,132831488,72.0,72.2,164,1234.5,GPU A,abc1234
shiftresnet56,9,,,1,877748,132831488,72.2,72.5,164,1234.5,"GPU B, 2|3",abc1234
resnet20,,,,0,278324,40818944,66,66.3,164,25,GPU A,abc1234
resnet110,1,module,,0,121424,17000000,64.78,64.79,164,40,GPU A,abc1234
resnet56,1,net,,0,103464,14061976,55.62,55.63,164,40,GPU A,abc1234
depthwiseresnet20,3,,,0,101000,16000000,63.51,63.6,164,40,GPU A,abc1234
resnet20_projection,1,module,,0,41796,5255424,50.5,51,164,40,GPU A,abc1234
shiftresnet20,3,,,0,101492,16439552,40,40.5,8,5,CPU,abc1234+
shiftresnet20,3,,,1,101492,16439552,41,41.5,8,5,CPU,abc1234+
shiftresnet20,3,,,2,101492,16439552,45,45.5,8,5,CPU,abc1234+
shiftresnet20,3,,cross,0,101492,16439552,41,42,8,5,CPU,abc1234+
shiftresnet20,3,,cross,1,101492,16439552,43,44,8,5,CPU,abc1234+
resnet20,1,module,,0,35946,5000000,31,31.5,16,5,CPU,abc1234+
shiftresnet20,1,,diagonal,0,40756,5953792,50,50.5,164,5,CPU,abc1234
shiftresnet20,3,,even,1,101492,16439552,42.5,43.25,8,5,CPU,abc1234+
shiftresnet56,1,,cross,0,107956,15390976,60,61,164,5,CPU,abc1234
"""
CSV_10 = """\
model,expansion,reduction,allocation,seed,params,macs,last_top1,best_top1,epochs,minutes,device,commit
shiftresnet20,3,,,0,95642,16433792,89.9,90.1,164,30,GPU A,abc1234
resnet20,,,,4,272474,40813184,90.3,90.36,164,30,GPU A,abc1234
"""


def other_runs(rows):
    """Runs of another recipe or of trained offsets, beside controlled runs of the network."""
    first, short = rows[0], rows[10]
    return [
        first._replace(last_top1=70.0, best_top1=71.0, recipe="short"),
        first._replace(seed=5, last_top1=72.0, best_top1=73.0, recipe="short"),
        short._replace(last_top1=50.0, best_top1=51.0, shift="active"),
        rows[13]._replace(last_top1=52.0, best_top1=53.0, shift="sparse"),
    ]


def section(page, heading):
    """Lines below a heading, up to the next one."""
    lines = page.split(f"{heading}\n")[1].splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith("#")), len(lines))
    return lines[:end]


def table(page, heading):
    """Rows of the table below a heading, without the padding."""
    lines = [line for line in section(page, heading) if line.startswith("|")]
    return [
        [cell.strip() for cell in line.replace("\\|", "¦")[1:-1].split("|")] for line in lines[2:]
    ]


def cells(page, heading):
    """Rows of the table below a heading by first cell."""
    return {first: rest for first, *rest in table(page, heading)}


def row(text):
    return text.split("|")
