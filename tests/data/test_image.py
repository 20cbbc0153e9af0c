"""Pictures: what comes out of good files, what is said of bad ones and at which cost, and how training varies them."""

import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import MIDDLE, animated, huge_webp, png, saved, sixteen_bits, striped
from PIL import Image

from transduce.data.codec import fit_codec, load_codec
from transduce.data.image import IMAGENET, ImageCodec, ImageConfig
from transduce.data.picture_files import Limits, webp_size
from transduce.data.values import BadValueError, Media
from transduce.errors import DataError
from transduce.model.frontends import Pixels

RED, GREEN, BLUE = (250, 10, 10), MIDDLE, (10, 10, 250)
KEYS = np.arange(1, 9, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def codec(**settings: Any) -> ImageCodec:
    return ImageCodec(ImageConfig.model_validate({"size": 16, "patch": 8, **settings}), *IMAGENET)


def pixels(folder: Path, content: bytes, name: str = "picture", **settings: Any) -> NDArray[np.uint8]:
    """(H, W, 3) as the codec sees the file."""
    (folder / name).write_bytes(content)
    return codec(**settings).pixels(Media(folder / name)).transpose(1, 2, 0)


def near(colour: NDArray[np.uint8], expected: tuple[int, ...], tolerance: int = 6) -> bool:
    return bool(np.abs(colour.astype(int) - expected).max() <= tolerance)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_the_middle_is_cut_out_or_the_whole_is_squashed(tmp_path: Path, form: str) -> None:
    content = saved(striped(), form, quality=95)
    cut, squashed = pixels(tmp_path, content), pixels(tmp_path, content, fit="squash")
    assert cut.shape == (16, 16, 3)
    assert near(cut[8, 3], GREEN, 12) and near(cut[8, 12], GREEN, 12), "10 pixels at each side are left out"
    assert near(squashed[8, 1], RED, 16) and near(squashed[8, 8], GREEN, 12) and near(squashed[8, 14], BLUE, 16)


def test_pictures_are_turned_as_they_are_looked_at(tmp_path: Path) -> None:
    """Orientation 6: the camera was turned; what is stored on the left stands on top. Upright first, whatever the tag."""
    for orientation, top, left in ((1, GREEN, RED), (3, GREEN, BLUE), (6, RED, GREEN), (8, BLUE, GREEN)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for form in ("JPEG", "PNG", "WEBP"):
            seen = pixels(tmp_path, saved(striped(), form, exif=exif, quality=95), fit="squash")
            assert near(seen[1, 8], top, 24) and near(seen[8, 1], left, 24), (orientation, form)


def test_a_large_jpeg_looks_like_the_same_small_one(tmp_path: Path) -> None:
    large = pixels(tmp_path, saved(striped(1200, 800), "JPEG", quality=95), fit="squash")
    assert np.abs(large.astype(int) - pixels(tmp_path, saved(striped()), fit="squash")).mean() < 6


def test_colours_of_all_kinds(tmp_path: Path) -> None:
    plain = pixels(tmp_path, saved(striped()), fit="squash")
    palette = saved(striped().quantize(8))
    assert near(pixels(tmp_path, palette, fit="squash"), plain, 60) and near(pixels(tmp_path, palette, fit="squash")[8, 8], GREEN)
    cmyk = pixels(tmp_path, saved(striped().convert("CMYK"), "JPEG", quality=95), fit="squash")
    assert near(cmyk[8, 1], RED, 20) and near(cmyk[8, 8], GREEN, 20)
    grey = pixels(tmp_path, sixteen_bits())
    assert near(grey[8, 2], (0, 0, 0)) and near(grey[8, 13], (255, 255, 255)), "16 bits are scaled, not cut off"
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert near(pixels(tmp_path, saved(clear)), (255, 255, 255)), "what is transparent shows white, not what is hidden"
    assert near(pixels(tmp_path, saved(Image.new("1", (8, 8), 1))), (255, 255, 255))
    assert near(pixels(tmp_path, saved(Image.new("LA", (8, 8), (0, 255)))), (0, 0, 0))


def test_one_pixel_and_a_wrong_ending_are_pictures_too(tmp_path: Path) -> None:
    assert near(pixels(tmp_path, saved(Image.new("RGB", (1, 1), BLUE))), BLUE)
    assert near(pixels(tmp_path, saved(Image.new("RGB", (9, 9), BLUE)), name="picture.jpg"), BLUE), "a PNG file called .jpg"
    assert near(pixels(tmp_path, saved(Image.new("RGB", (4000, 1), BLUE))), BLUE)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "file is empty"),
    "zeros": (bytes(5000), "not a picture"),
    "text.png": (b"this is a text", "not a picture"),
    "gif": (saved(striped(), "GIF"), "not a picture"),
    "tiff.jpg": (saved(striped(), "TIFF"), "not a picture"),
    "huge.png": (png(50_000, 50_000), "50000 x 50000 pixels"),
    "huge.webp": (huge_webp(16_000, 16_000), "16000 x 16000 pixels"),
    "no-size.png": (png(0, 10), "damaged"),
    "no-data.png": (png(4000, 4000), "damaged"),
    "cut.png": (saved(striped(600, 400))[:-900], "damaged"),
    "cut.jpg": (saved(striped(600, 400), "JPEG")[:900], "damaged"),
    "cut.webp": (saved(striped(600, 400), "WEBP")[:60], "damaged"),
    "header-only.jpg": (b"\xff\xd8\xff\xe0", "damaged"),
    "header-only.png": (b"\x89PNG\r\n\x1a\n", "damaged"),
    "header-only.webp": (b"RIFF\0\0\0\0WEBP", "damaged"),
    "unknown.webp": (b"RIFF\0\0\0\0WEBPABCD" + bytes(40), "damaged"),
    "animated.png": (animated("PNG"), "animated"),
    "animated.webp": (animated("WEBP"), "animated"),
    "text-bomb.png": (png(9, 9, extra=((b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000), 1)),)), "damaged"),
    "scrambled.png": (png(300, 300, data=bytes(range(256)) * 40), "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_bad_values_at_once(tmp_path: Path, name: str) -> None:
    content, said = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    start = time.monotonic()
    for row in (*codec().rows([Media(tmp_path / name)], thorough=True), *codec().contents([Media(tmp_path / name)])):
        assert row.problem is not None and said in str(row.problem) and name in str(row.problem)
    assert time.monotonic() - start < 2
    with pytest.raises(BadValueError, match=said):
        codec().collate([_row(tmp_path / name)], None)


def _row(path: Path) -> NDArray[np.uint8]:
    from transduce.data.media import media_row

    return media_row(Media(path), 4).data


MEMORY = """
import resource, sys
from pathlib import Path
from transduce.data.image import IMAGENET, ImageCodec, ImageConfig
from transduce.data.values import Media
codec = ImageCodec(ImageConfig(size=16, patch=8), *IMAGENET)
codec.rows([Media(Path(sys.argv[1]))], thorough=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = [codec.rows([Media(Path(path))], thorough=True)[0] for path in sys.argv[2:]]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, [str(row.problem) for row in rows])
"""


def test_no_file_takes_200_mebibytes(tmp_path: Path) -> None:
    """The largest picture that is allowed, all zeros packed a thousandfold, and headers that promise more."""
    (tmp_path / "plain").write_bytes(saved(striped()))
    line = bytes(1 + 3 * 6000)
    (tmp_path / "bomb").write_bytes(png(6000, 4000, data=zlib.compress(line * 4000, 1)))
    for name in ("huge.png", "huge.webp", "text-bomb.png"):
        (tmp_path / name).write_bytes(HOSTILE[name][0])
    names = ["plain", "bomb", "huge.png", "huge.webp", "text-bomb.png"]
    command = [sys.executable, "-c", MEMORY, *(str(tmp_path / name) for name in names)]
    mebibytes, problems = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" ", 1)
    assert int(mebibytes) < 200
    assert problems.startswith("['None', ") and problems.count("None") == 1


def test_rows_read_headers_only_unless_thorough(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(saved(Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)))[:-20_000])
    (row,) = codec().rows([Media(path)])
    assert row.problem is None and row.width == 4
    (row,) = codec().rows([Media(path)], thorough=True)
    assert row.problem is not None and row.problem.reason == "picture is damaged"
    segment = b"\xff\xe5" + (60_002).to_bytes(2, "big") + bytes(60_000)
    late = tmp_path / "late.jpg"  # its size stands behind 120 KB of other data
    late.write_bytes(saved(striped(), "JPEG").replace(b"\xff\xd8", b"\xff\xd8" + 2 * segment, 1))
    assert codec().rows([Media(late)])[0].problem is None
    (row,) = codec().rows([Media(late, None, 1.0, 2.0)])
    assert row.problem is not None and row.problem.reason == "a picture has no time"


def test_batches_are_pixels_and_do_not_depend_on_their_company(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    for number in range(4):
        (tmp_path / str(number)).write_bytes(saved(Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))))
    vary = codec(smallest_crop=0.4, random_flip=True, jitter=0.4)
    rows = [row.data for row in vary.rows([Media(tmp_path / str(number)) for number in range(4)])]
    whole = [row.data for row in vary.contents([Media(tmp_path / str(number)) for number in range(4)])]
    assert torch.equal(vary.collate(whole, None).data, vary.collate(rows, None).data), "decoded before or in the batch"
    batch = vary.collate(rows, KEYS[:4])
    assert batch.data.shape == (4, 3, 16, 16) and str(batch.data.dtype) == "torch.uint8" and batch.lengths.tolist() == [4] * 4
    again = vary.collate(rows[2:3], KEYS[2:3])
    assert (again.data == batch.data[2:3]).all(), "a function of the picture and its key"
    assert (vary.collate(rows[2:3], KEYS[5:6]).data != again.data).any()
    plain = vary.collate(rows, None)
    assert (plain.data == codec().collate(rows, None).data).all() and plain.keys is None, "nothing varies outside training"


def test_each_change_does_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(saved(striped()))
    row = _row(path)
    many = np.random.default_rng(3).integers(1 << 63, size=60, dtype=np.uint64)

    def seen(**settings: Any) -> NDArray[np.uint8]:
        return codec(fit="squash", **settings).collate([row] * 60, many).data.numpy().transpose(0, 2, 3, 1)

    plain = codec(fit="squash").pixels(Media(path)).transpose(1, 2, 0)
    flips = seen(random_flip=True)
    turned = [(picture == plain[:, ::-1]).all() for picture in flips]
    assert 15 < sum(turned) < 45 and all(turned[index] or (flips[index] == plain).all() for index in range(60))
    crops = seen(smallest_crop=0.3)
    shares = [(np.abs(picture.astype(int) - RED).max(2) < 90).mean() for picture in crops]
    assert min(shares) == 0 and max(shares) > 0.3 and len({picture.tobytes() for picture in crops}) > 40
    bright = seen(jitter=0.5).mean((1, 2, 3)) / plain.mean()
    assert bright.min() < 0.7 and bright.max() > 1.2


def test_colours_are_fitted_and_the_codec_is_stored(tmp_path: Path) -> None:
    for name, colour in (("a", (255, 51, 0)), ("b", (0, 51, 0))):
        (tmp_path / name).write_bytes(saved(Image.new("RGB", (8, 8), colour)))
    (tmp_path / "broken").write_bytes(b"broken")
    names = [Media(tmp_path / name) for name in ("a", "broken", "b")]
    config = ImageConfig(size=16, patch=8, normalise="fitted")
    fitted = fit_codec(config, iter(names), seed=1)
    assert isinstance(fitted, ImageCodec)
    assert fitted.mean == (0.5, 0.2, 0.0) and fitted.std == (0.5, 0.05, 0.05)
    fitted.save(tmp_path / "codec")
    loaded = load_codec(tmp_path / "codec")
    assert loaded.digest == fitted.digest and loaded.shape == fitted.shape and loaded.describe() == "image, 16 x 16 pixels in 4 cells"
    assert loaded.labels(_row(tmp_path / "a")) == ["1.1", "1.2", "2.1", "2.2"]
    with pytest.raises(DataError, match="no readable picture"):
        fit_codec(config, iter(names[1:2]), seed=1)
    with pytest.raises(ValueError, match="multiple of patch"):
        ImageConfig(size=20, patch=8)


def test_colours_of_stored_weights_are_not_learned() -> None:
    """Those of torchvision's weights, and of the published ViTs."""
    imagenet, half = (fit_codec(ImageConfig(size=16, patch=8, normalise=name), iter(()), seed=1) for name in ("imagenet", "half"))
    assert imagenet.shape == Pixels(16, 8, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert half.shape == Pixels(16, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_sizes_in_webp_headers_are_those_of_their_files() -> None:
    for options in ({"lossless": True}, {"quality": 50}, {"quality": 50, "exif": b"Exif\0\0"}):
        assert webp_size(saved(striped(61, 33), "WEBP", **options)) == (61, 33)
    Limits(10, "here").check(5, 2)
