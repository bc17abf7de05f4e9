"""Draw what the chapters explain, as SVG: `python tools/drawings.py [FOLDER]`.

A drawing is a function: its docstring is the text alternative of the picture, in the
words of the chapters, and it returns shapes, on whole coordinates, 600 wide. Colours are
those of the reader's mode, light or dark, on a ground of their own.
"""

import re
import sys
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "book" / "_static" / "drawings"
WIDTH = 600
LINE = 19  # from one line of text to the next

PAGE = """\
<svg xmlns="http://www.w3.org/2000/svg" role="img"
 viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<title>{title}</title>
<style>
svg {{ font: 14px system-ui, "DejaVu Sans", sans-serif }}
.ground {{ fill: #fff }} text {{ fill: #1a1a1a; text-anchor: middle }}
.box {{ fill: #eef2f5 }} .blue {{ fill: #a6d0ec }} .orange {{ fill: #f6cf8f }} .dark {{ fill: #444 }}
.box, .blue, .orange, .dark, .line {{ stroke: #1a1a1a; stroke-width: 1.3 }}
.line {{ fill: none }} .broken {{ stroke-dasharray: 5 4 }} .tip {{ fill: #1a1a1a }}
@media (prefers-color-scheme: dark) {{
.ground {{ fill: #1b1f23 }} text {{ fill: #eee }} .tip {{ fill: #eee }}
.box {{ fill: #30363d }} .blue {{ fill: #14527a }} .orange {{ fill: #7a4d05 }} .dark {{ fill: #000 }}
.box, .blue, .orange, .dark, .line {{ stroke: #eee }}
}}
</style>
<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path class="tip" d="M0 0L8 4L0 8z"/></marker>
<rect class="ground" width="{width}" height="{height}"/>
{shapes}
</svg>
"""


# -- shapes


def words(x, y, text):
    """Lines of text, their middle at a point; `_1` is lowered."""
    lines = text.split("\n")
    top = y + 5 - LINE * (len(lines) - 1) // 2
    return "\n".join(
        f'<text x="{x}" y="{top + LINE * i}">{lowered(line)}</text>'
        for i, line in enumerate(lines)
    )


def lowered(line):
    """Text with indices; what follows each stands at the old height again."""
    parts = re.split(r"_(\w)", escape(line))
    down = '<tspan dy="4" font-size="11">{}</tspan>'
    for i in range(1, len(parts), 2):
        back = f'<tspan dy="-4">{parts[i + 1]}</tspan>' if parts[i + 1] else ""
        parts[i], parts[i + 1] = down.format(parts[i]), back
    return "".join(parts)


def box(x, y, width, height, text="", kind="box"):
    """A rectangle around a text."""
    shape = f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>'
    return f"{shape}\n{words(x + width // 2, y + height // 2, text)}" if text else shape


def funnel(x, y, width, left, right, text, kind="box"):
    """A network that narrows or widens, its sides of two heights, around `y`."""
    a, b = left // 2, right // 2
    shape = f"M{x} {y - a}L{x + width} {y - b}V{y + b}L{x} {y + a}z"
    return f'<path class="{kind}" d="{shape}"/>\n{words(x + width // 2, y, text)}'


def arrow(*points, kind="line"):
    """An arrow through points."""
    path = "L".join(f"{x} {y}" for x, y in points)
    return f'<path class="{kind}" d="M{path}" marker-end="url(#tip)"/>'


def broken(*points):
    """An arrow that is not always taken."""
    return arrow(*points, kind="line broken")


def stack(x, y, width, height, n, kind="blue"):
    """Maps, one behind the other."""
    return "\n".join(
        box(x + 5 * k, y - 5 * k, width, height, kind=kind) for k in reversed(range(n))
    )


def grid(x, y, n, side, filled=(), kind="dark", empty="box"):
    """Squares of a side, n by n; those that are filled by their number."""
    return "\n".join(
        f'<rect class="{kind if k in filled else empty}" x="{x + k % n * side}" '
        f'y="{y + k // n * side}" width="{side}" height="{side}"/>'
        for k in range(n * n)
    )


def disc(x, y, radius, kind="blue"):
    """A disc around a point."""
    return f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius}"/>'


def curve(*points, kind="line"):
    """A line through points."""
    path = "L".join(f"{x} {y}" for x, y in points)
    return f'<path class="{kind}" d="M{path}"/>'


# -- drawings


def pipeline():
    """Normal images alone teach the background model. A new image goes to the model,
    which gives an anomaly score; where the score is above the threshold, the verdict is
    anomalous, else normal. The threshold comes from other normal images.
    """
    return 250, [
        box(20, 20, 130, 50, "normal images,\nto train", "blue"),
        arrow((85, 70), (85, 100), (245, 100), (245, 125)),
        box(20, 130, 90, 60, "new\nimage s"),
        arrow((110, 160), (175, 160)),
        box(180, 130, 130, 60, "background\nmodel"),
        arrow((310, 160), (355, 160)),
        box(360, 130, 80, 60, "score\nA(s)"),
        arrow((440, 160), (470, 160)),
        box(475, 130, 105, 60, "A(s) > γ ?"),
        box(330, 20, 140, 50, "normal images,\nheld out", "blue"),
        arrow((470, 45), (528, 45), (528, 125)),
        words(545, 95, "γ"),
        arrow((495, 190), (480, 214)),
        arrow((548, 190), (548, 214)),
        words(470, 230, "normal"),
        words(548, 230, "anomalous"),
        words(245, 214, "the same for each patch gives a map"),
    ]


def autoencoder():
    """An encoder, which narrows, turns an image into a short code; a decoder, which
    widens, turns the code into a reconstruction. How far the image is from its
    reconstruction, the residual, is the anomaly score.
    """
    return 230, [
        box(15, 50, 70, 90, "image\ns"),
        arrow((85, 95), (110, 95)),
        funnel(115, 95, 110, 110, 50, "encoder", "blue"),
        arrow((225, 95), (250, 95)),
        box(255, 65, 50, 60, "code\nα"),
        arrow((305, 95), (330, 95)),
        funnel(335, 95, 110, 50, 110, "decoder", "blue"),
        arrow((445, 95), (470, 95)),
        box(475, 50, 110, 90, "reconstruction\nŝ"),
        arrow((50, 140), (50, 195), (190, 195)),
        arrow((530, 140), (530, 195), (410, 195)),
        box(195, 175, 210, 40, "residual: how far s is from ŝ", "orange"),
    ]


def dagmm():
    """An autoencoder turns an image into a code and a reconstruction. The code and two
    numbers about the reconstruction, the relative error and the cosine, make a vector z.
    An estimation network turns z into the responsibilities of a mixture of Gaussians,
    whose parameters follow from them; the score is the energy of z in this mixture.
    """
    return 300, [
        box(15, 30, 60, 60, "image\ns"),
        arrow((75, 60), (95, 60)),
        funnel(100, 60, 90, 80, 40, "encoder", "blue"),
        arrow((190, 60), (215, 60)),
        box(220, 40, 50, 40, "α", "orange"),
        arrow((270, 60), (295, 60)),
        funnel(300, 60, 90, 40, 80, "decoder", "blue"),
        arrow((390, 60), (410, 60)),
        box(415, 30, 60, 60, "ŝ"),
        arrow((45, 90), (45, 120), (355, 120)),
        arrow((445, 90), (445, 105)),
        box(360, 110, 170, 40, "error, cosine", "orange"),
        arrow((245, 80), (245, 185)),
        arrow((445, 150), (445, 200), (340, 200)),
        box(165, 190, 170, 34, "z = (α, error, cosine)", "orange"),
        arrow((165, 207), (140, 207), (140, 235)),
        funnel(60, 262, 160, 44, 44, "estimation network", "blue"),
        arrow((220, 262), (245, 262)),
        box(250, 242, 120, 40, "shares γ_i"),
        arrow((370, 262), (395, 262)),
        box(400, 232, 185, 60, "mixture of Gaussians:\nenergy −log p(z)"),
        arrow((335, 214), (490, 214), (490, 227)),
    ]


def padim():
    """A trained, frozen network turns an image into maps of three layers: many fine
    ones, and fewer places with more channels further on. The coarse maps are enlarged
    and laid behind the fine ones. At each place the channels of all three are one
    vector, and each place has a Gaussian of its own.
    """
    return 260, [
        box(15, 60, 80, 80, "image"),
        arrow((95, 100), (118, 100)),
        stack(125, 60, 70, 70, 3, "blue"),
        words(165, 155, "layer 1"),
        arrow((208, 100), (228, 100)),
        stack(235, 80, 40, 40, 5, "orange"),
        words(265, 155, "layer 2"),
        arrow((298, 100), (318, 100)),
        stack(325, 95, 20, 20, 7, "box"),
        words(350, 155, "layer 3"),
        words(300, 25, "frozen network"),
        arrow((375, 100), (405, 100)),
        words(478, 25, "enlarged and stacked"),
        stack(460, 115, 70, 70, 12, "box"),
        stack(435, 140, 70, 70, 5, "orange"),
        stack(420, 155, 70, 70, 3, "blue"),
        disc(450, 190, 5, "dark"),
        arrow((445, 193), (330, 215)),
        box(
            15,
            195,
            310,
            50,
            "the vector at this place, and\nits own Gaussian N(μ, Σ)",
        ),
    ]


def student_teacher():
    """The same image goes to a teacher, a trained network that stays as it is, and to
    several students, which learned on normal images to give the teacher's vectors. At
    each place two things are signs of an anomaly: the error, how far the mean of the
    students is from the teacher, and the variance among the students.
    """
    return 260, [
        box(15, 95, 80, 80, "image"),
        curve((95, 135), (115, 135)),
        curve((115, 50), (115, 215)),
        *(arrow((115, y), (140, y)) for y in (50, 115, 165, 215)),
        box(145, 25, 150, 50, "teacher, frozen"),
        *(box(145, 95 + 50 * k, 150, 40, f"student {k + 1}", "blue") for k in range(3)),
        *(curve((295, y), (325, y)) for y in (115, 165, 215)),
        curve((325, 115), (325, 215)),
        arrow((295, 50), (355, 50)),
        arrow((325, 130), (355, 130)),
        arrow((325, 200), (355, 200)),
        box(360, 20, 225, 60, "error: how far the mean\nis from the teacher", "orange"),
        arrow((395, 110), (395, 85)),
        box(360, 110, 70, 40, "mean"),
        box(360, 175, 225, 50, "variance among the students", "orange"),
        words(300, 247, "at each place of the image"),
    ]


def inpainting():
    """The cells of a grid are dealt to three sets. In each of three rows the cells of
    one set are hidden, a network guesses the image from the rest, and of the guess only
    the hidden cells are kept. Together the three make the whole image, every pixel of
    which was guessed unseen.
    """
    sets = [(0, 5, 7, 10, 14), (1, 4, 8, 11, 13, 15), (2, 3, 6, 9, 12)]
    shapes = [
        words(62, 20, "hidden cells"),
        words(200, 20, "network"),
        words(345, 20, "kept guesses"),
        words(515, 75, "their sum: the\ninpainted image"),
    ]
    for k, filled in enumerate(sets):
        top = 40 + 100 * k
        shapes += [
            grid(22, top, 4, 20, filled),
            arrow((102, top + 40), (145, top + 40)),
            box(150, top + 15, 100, 50, "U-Net", "blue"),
            arrow((250, top + 40), (300, top + 40)),
            grid(305, top, 4, 20, filled, "orange", "line"),
            arrow((385, top + 40), (435, top + 40), (468, 152 + 14 * k)),
        ]
    whole = grid(475, 126, 4, 20, range(16), "orange")
    return 340, [*shapes, whole]


def open_set():
    """A classifier turns an image into one logit for each known class. The largest one
    names the class. Beside it, a score is computed from the logits; where it is above
    the threshold, the answer is not a class but unknown.
    """
    return 240, [
        box(15, 70, 75, 75, "image s"),
        arrow((90, 107), (115, 107)),
        funnel(120, 107, 120, 110, 60, "classifier", "blue"),
        arrow((240, 107), (265, 107)),
        box(270, 80, 85, 55, "logits\nℓ_1 … ℓ_L", "orange"),
        arrow((355, 95), (380, 95), (380, 50), (400, 50)),
        box(405, 25, 180, 50, "largest logit:\nthe class"),
        arrow((312, 135), (312, 160)),
        box(225, 165, 175, 55, "score of the logits\n> γ ?", "box"),
        broken((400, 182), (495, 182), (495, 80)),
        words(440, 170, "no"),
        arrow((400, 205), (465, 205)),
        words(430, 222, "yes"),
        box(470, 187, 115, 36, "unknown", "orange"),
    ]


def draem():
    """A normal image gets a foreign texture pasted within a random mask. A
    reconstructive network gives the image back without it. A discriminative network
    sees both, and says for each pixel how likely it was pasted. The mask is the right
    answer.
    """
    return 270, [
        box(10, 20, 120, 45, "normal image", "blue"),
        box(10, 80, 120, 45, "foreign texture", "orange"),
        box(10, 140, 120, 45, "random mask M"),
        arrow((130, 42), (150, 42), (150, 90), (165, 90)),
        arrow((130, 102), (165, 102)),
        arrow((130, 162), (150, 162), (150, 114), (165, 114)),
        box(170, 75, 75, 55, "paste:\nI_a"),
        arrow((245, 102), (270, 102)),
        funnel(275, 102, 75, 90, 50, "recon-", "blue"),
        funnel(350, 102, 75, 50, 90, "structive", "blue"),
        arrow((425, 102), (450, 102)),
        box(455, 75, 130, 55, "without the\ntexture: I_r"),
        arrow((207, 130), (207, 215), (270, 215)),
        arrow((520, 130), (520, 160), (250, 160), (250, 200), (270, 200)),
        funnel(275, 215, 75, 70, 40, "discri-", "blue"),
        funnel(350, 215, 75, 40, 70, "minative", "blue"),
        arrow((425, 215), (450, 215)),
        box(455, 187, 130, 55, "p(c): pasted\nat pixel c?"),
        broken((70, 185), (70, 254), (520, 254), (520, 246)),
        words(135, 240, "the right answer"),
    ]


def capsules():
    """Convolutions turn an image into many short vectors, the primary capsules. Each
    votes, through a learned matrix, for each of two capsules above. Routing gives more
    weight to votes that agree. The length of the first capsule above says normal, that
    of the second anomalous; a decoder draws the image again from the first.
    """
    tops = (75, 125, 175, 225)
    return 280, [
        box(15, 115, 70, 70, "image s"),
        arrow((85, 150), (105, 150)),
        box(110, 115, 80, 70, "convo-\nlutions", "blue"),
        arrow((190, 150), (215, 150)),
        *(arrow((234, y + 8), (250, y - 8)) for y in tops),
        words(245, 262, "capsules u_i"),
        *(curve((260, y), (370, 115)) for y in tops),
        *(curve((260, y), (370, 185), kind="line broken") for y in tops),
        words(310, 60, "votes"),
        disc(385, 115, 15, "blue"),
        disc(385, 185, 15, "orange"),
        arrow((400, 115), (425, 115)),
        arrow((400, 185), (425, 185)),
        arrow((385, 100), (385, 45), (425, 45)),
        box(430, 20, 155, 50, "decoder: the image\nagain"),
        box(430, 90, 155, 50, "z_n: its length says\nnormal", "blue"),
        box(430, 160, 155, 50, "z_a: its length says\nanomalous", "orange"),
    ]


def pyramids():
    """A frozen network turns an image into feature maps. Grids of 6, 3, 2 and 1 cells a
    side are laid over them, and each cell keeps the mean: a pyramid. From each grid an
    encoder makes a short code. The codes, and the feature maps beside them, go to a
    decoder, which makes the image again.
    """
    sides = ((6, 11), (3, 22), (2, 33), (1, 66))
    shapes = [
        box(15, 130, 65, 65, "image"),
        arrow((80, 162), (98, 162)),
        stack(103, 135, 55, 55, 4, "blue"),
        words(138, 215, "features ψ"),
    ]
    for k, (n, side) in enumerate(sides):
        top = 12 + 80 * k
        middle = top + 33
        shapes += [
            arrow((178, 162), (200, 162), (200, middle), (218, middle)),
            grid(225, top, n, side),
            arrow((291, middle), (308, middle)),
            funnel(312, middle, 70, 50, 26, "encoder", "blue"),
            arrow((382, middle), (398, middle)),
            box(402, middle - 14, 34, 28, "α", "orange"),
            arrow((436, middle), (455, middle), (455, 150), (475, 150)),
        ]
    shapes += [
        arrow((138, 225), (138, 350), (465, 350), (465, 180), (475, 180)),
        funnel(480, 165, 60, 60, 110, "deco-\nder", "blue"),
        arrow((540, 165), (555, 165)),
        words(572, 165, "ŝ"),
        words(330, 338, "beside the codes"),
    ]
    return 365, shapes


def transformer():
    """An image is cut into patches. Each becomes a token: a learned map of its pixels
    plus a vector of its place. In the blocks of the encoder every token looks at all
    others. In training one vector is made of all tokens, and a decoder draws the image
    again. For the score, a mixture of Gaussians says how likely each token is, and so
    where the anomaly lies.
    """
    return 280, [
        grid(15, 75, 4, 22, (5,), "orange"),
        words(59, 185, "patches"),
        arrow((103, 119), (125, 119)),
        *(
            box(130, 32 + 30 * k, 60, 20, kind="orange" if k == 2 else "blue")
            for k in range(6)
        ),
        words(160, 240, "tokens: look\nand place"),
        arrow((190, 119), (212, 119)),
        box(217, 30, 110, 175, "blocks:\nevery token\nlooks at all\nothers", "box"),
        arrow((327, 119), (347, 119)),
        *(
            box(352, 32 + 30 * k, 60, 20, kind="orange" if k == 2 else "blue")
            for k in range(6)
        ),
        arrow((412, 80), (435, 80)),
        box(440, 45, 145, 65, "one vector, and\na decoder: the\nimage again"),
        arrow((412, 165), (435, 165)),
        box(440, 135, 145, 65, "mixture: −log p\nof each token:\nwhere"),
    ]


def pareto():
    """Methods as points, cost to the right and quality upwards. Filled points are on
    the Pareto front: no other is as good at no more cost. A line joins them in steps.
    Empty points lie below it, and can be dropped whatever cost and quality are worth.
    """
    front = ((110, 200), (175, 130), (290, 80), (470, 55))
    others = ((150, 215), (235, 185), (265, 165), (350, 150), (420, 110), (500, 170))
    steps = [(110, 245)]
    for x, y in front:
        steps += [(x, steps[-1][1]), (x, y)]
    return 290, [
        arrow((60, 250), (580, 250)),
        arrow((60, 250), (60, 20)),
        words(320, 272, "cost: seconds, memory, images, labels"),
        words(110, 30, "quality"),
        curve(*steps[1:], (570, 55)),
        *(disc(x, y, 8, "blue") for x, y in front),
        *(disc(x, y, 8, "line") for x, y in others),
        words(470, 32, "on the front"),
        words(485, 200, "another one is as\ngood, and cheaper"),
    ]


def zero_shot():
    """An image goes through a network, and two texts, flawless wood and damaged wood,
    through a text encoder. All become unit vectors in one space, which was learned from
    images with captions. The score is the probability of the second text: how near the
    image is to it, compared with the first.
    """
    return 250, [
        box(10, 30, 125, 60, "image of wood", "blue"),
        arrow((135, 60), (160, 60)),
        funnel(165, 60, 110, 80, 44, "images", "blue"),
        box(10, 135, 125, 36, "“flawless wood”"),
        box(10, 185, 125, 36, "“damaged wood”", "orange"),
        arrow((135, 153), (160, 165)),
        arrow((135, 203), (160, 190)),
        funnel(165, 178, 110, 90, 44, "texts"),
        arrow((275, 60), (318, 95)),
        arrow((275, 178), (318, 145)),
        disc(370, 125, 60, "line"),
        arrow((370, 125), (418, 91)),
        arrow((370, 125), (345, 72)),
        arrow((370, 125), (428, 110)),
        words(352, 55, "flawless"),
        words(444, 80, "image"),
        words(466, 114, "damaged"),
        words(370, 212, "one space of\nunit vectors"),
        arrow((430, 140), (455, 150)),
        box(460, 140, 125, 60, "score:\np(damaged)", "orange"),
    ]


def changing_world():
    """Parts come one after another, and a detector gives each a score. A chart adds up
    by how much scores are too high; where the sum passes its limit h, it raises an
    alarm. Somebody looks: a defect is mended at the machine. If the parts are good and
    have changed, the detector is fitted anew, to new images and to a memory of old
    ones, and its threshold is set anew.
    """
    sums = [
        (310, 128),
        (325, 118),
        (340, 128),
        (355, 122),
        (370, 108),
        (385, 96),
        (400, 78),
    ]
    return 290, [
        *(disc(30 + 34 * k, 90, 12, "orange" if k == 0 else "blue") for k in range(3)),
        words(64, 125, "parts"),
        arrow((118, 90), (140, 90)),
        box(145, 60, 95, 60, "detector", "blue"),
        arrow((240, 90), (285, 90)),
        words(262, 76, "z_t"),
        box(290, 50, 130, 90),
        curve((295, 85), (415, 85), kind="line broken"),
        words(304, 74, "h"),
        curve(*sums),
        words(355, 35, "sum of the scores"),
        arrow((420, 95), (445, 95)),
        box(450, 70, 135, 50, "alarm: look at\nthe parts", "orange"),
        arrow((555, 120), (555, 175)),
        box(487, 180, 103, 55, "defect: stop,\nmend"),
        arrow((480, 120), (480, 150), (410, 150), (410, 175)),
        box(330, 180, 150, 55, "good, but changed:\nfit and calibrate"),
        arrow((330, 207), (192, 207), (192, 125)),
        box(15, 215, 150, 55, "memory of images,\nold and new", "blue"),
        arrow((165, 243), (250, 243), (250, 222), (325, 222)),
    ]


# -- how they are written

DRAWINGS = (
    pipeline,
    autoencoder,
    dagmm,
    padim,
    student_teacher,
    inpainting,
    open_set,
    draem,
    capsules,
    pyramids,
    transformer,
    pareto,
    zero_shot,
    changing_world,
)


def alternative(drawing):
    """Return what a drawing shows, in words."""
    return " ".join(drawing.__doc__.split())


def svg(drawing):
    """Return the file of a drawing."""
    height, shapes = drawing()
    title = escape(alternative(drawing))
    shapes = "\n".join(shapes)
    return PAGE.format(width=WIDTH, height=height, title=title, shapes=shapes)


def write(folder):
    """Write all drawings."""
    folder.mkdir(parents=True, exist_ok=True)
    for drawing in DRAWINGS:
        file = folder / f"{drawing.__name__}.svg"
        file.write_text(svg(drawing), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
