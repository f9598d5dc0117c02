"""The bytes of a picture file, opened and checked before a pixel is decoded.

Training and the service open pictures here alone, so both take the same files. Text in a PNG, a damaged EXIF block and
the index of pictures behind a JPEG do not matter: nothing of them is seen.
"""

from __future__ import annotations

import io
import math
import zlib
from dataclasses import dataclass

from PIL import AvifImagePlugin, Image, TiffImagePlugin, UnidentifiedImageError, features

from training.common import units
from training.model.picture.boxes import BoxError, Needed, needed
from training.model.picture.colour import wide_gamut

try:
    import pillow_heif
except ModuleNotFoundError:  # left out of the build
    pillow_heif = None  # type: ignore[assignment]
else:
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the cores are shared out among pictures

# The limit on pixels is ours (Limits.max_pixels), checked on the header; Pillow's own only warns and is per process.
Image.MAX_IMAGE_PIXELS = None

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"),
    *(["HEIF"] if pillow_heif else []),
    *(["AVIF"] if features.check("avif") else []),
)
BOXED = {"HEIF", "AVIF"}  # a picture in them may be made of others
MADE_OF = 4  # times its own pixels are decoded at most: the tiles, the whole, and transparency of both
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}
HDR = {16: "PQ", 18: "HLG"}  # transfer functions (ITU-T H.273) of which a viewer makes what nobody here can
SCANS = 10  # of a progressive JPEG as encoders make it; each is a pass over all of its pixels
SHARE = 8  # a JPEG of one scan is decoded at an eighth of its sides in a fifth to an eighth of the time
WORDS = 1 << 16  # bytes of text in one chunk of a PNG, unpacked; more is left out before Pillow sees it
PNG_START = b"\x89PNG\r\n\x1a\n"
TEXT = {b"tEXt", b"zTXt", b"iTXt"}
STANDALONE = (0x01, *range(0xD0, 0xDA))  # markers of a JPEG without a length; none stands in an honest header
FRAMES = (0xC0, 0xC1)  # of a JPEG in one scan, if it holds all colours; the others are progressive or not read


class PictureError(ValueError):
    """These bytes are not a picture that can be classified.

    `code` is one of empty, not_an_image, unsupported_format, too_many_pixels, too_small, extreme_aspect, corrupt,
    value_range, blank; `hint` says what would be accepted.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


@dataclass(frozen=True)
class Limits:
    """What is accepted before a single pixel is decoded; by default what params.yaml says in `serve`.

    `max_pixels` are those of a JPEG that are decoded: one in a single scan, as cameras write it, may have SHARE times
    as many, as it is decoded at a smaller scale. `max_pixels_heif` are those of HEIC and AVIF, `max_pixels_whole` those
    of any other picture.
    """

    max_pixels: int = 50_000_000
    min_side: int = 8
    max_aspect: float = 20.0
    formats: tuple[str, ...] = FORMATS
    max_pixels_whole: int = 16_000_000
    max_pixels_heif: int = 25_000_000


DEFAULT_LIMITS = Limits()


def open_checked(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The picture with its header read and checked against `limits`; its pixels are not decoded yet."""
    if not data:
        raise PictureError("empty", "the picture has no bytes", "send the bytes of a picture file")
    try:
        image = Image.open(io.BytesIO(_without_words(data)), formats=FORMATS)
        if image.format == "MPO":  # a JPEG with further pictures behind it, as many phones write them
            image.format = "JPEG"
    except UnidentifiedImageError:
        raise _unidentified(data, limits) from None
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise corrupt(error) from None
    made_of = _made_of(image, data)
    _check_header(image, data, limits, made_of)
    return image


def _made_of(image: Image.Image, data: bytes) -> Needed | None:
    """What the decoder of a HEIC or AVIF is made to decode; its wide colours are noted as a profile."""
    if image.format not in BOXED:
        return None
    try:
        made_of = needed(data)
    except BoxError as error:
        raise corrupt(error) from None
    if made_of.transfer in HDR:
        what = f"a picture of high dynamic range ({HDR[made_of.transfer]}) is not accepted"
        raise PictureError("unsupported_format", what, "send it as JPEG")
    if "icc_profile" not in image.info and (profile := wide_gamut(made_of.primaries)):
        image.info["icc_profile"] = profile
    return made_of


def corrupt(error: Exception) -> PictureError:
    """Of a file that a decoder stumbled over."""
    said = str(error).split("\n", 1)[0] or type(error).__name__
    return PictureError("corrupt", f"the picture cannot be decoded: {said}", "send a complete, undamaged file")


def work(image: Image.Image, data: bytes) -> int:
    """Pixels that are decoded to see the opened picture. A file may want more of them than it shows: a TIFF by tiles
    larger than the picture, a JPEG by scan after scan over the same pixels."""
    pixels = image.width * image.height
    if image.format == "JPEG":
        return pixels * max(1, scans(data) // SCANS)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        sides = [image.tag_v2.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        if all(isinstance(side, int) for side in sides):
            return max(pixels, int(math.prod(sides)))
    return pixels


def scans(data: bytes) -> int:
    """Scans of a JPEG, with those of pictures embedded in it: their marker stands nowhere else."""
    return data.count(b"\xff\xda")


def one_scan(data: bytes) -> bool:
    """Whether a JPEG holds all of its colours in one scan, so that no more than a few lines of it are in memory; of
    several, such as a progressive one has, the decoder keeps all coefficients (ITU-T T.81, B.2)."""
    place, components = 2, 0
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xDA:
            return 0 < components == data[place + 4]
        if marker in FRAMES:
            components = data[place + 9]
        elif marker in STANDALONE or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xCC)):
            return False
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big") if marker != 0xFF else 1
    return False


def _check_header(image: Image.Image, data: bytes, limits: Limits, made_of: Needed | None) -> None:
    width, height = image.size
    shown = f"the picture has {width} x {height} pixels"
    if image.format not in limits.formats:
        raise _not_accepted(_name(data, str(image.format)), limits)
    most = _most_pixels(image, data, limits)
    if width * height > most:
        hint = f"send at most {units.pixels(most)}" + (", or a JPEG" if image.format != "JPEG" else "")
        raise PictureError("too_many_pixels", shown, hint)
    if min(width, height) < limits.min_side:
        raise PictureError("too_small", shown, f"send at least {limits.min_side} pixels on the short side")
    if max(width, height) > limits.max_aspect * min(width, height):
        hint = f"the long side may be {limits.max_aspect:g} times the short side at most"
        raise PictureError("extreme_aspect", shown, hint)
    if made_of and (made_of.largest > most or made_of.pixels > most * MADE_OF):
        message = f"{shown}, and {made_of.pixels} would be decoded"
        raise PictureError("too_many_pixels", message, "save it anew: it is made of pictures out of proportion")
    if work(image, data) > most:
        message = f"{shown}, and {work(image, data)} would be decoded"
        raise PictureError("too_many_pixels", message, "save it anew: its scans or tiles are out of proportion")


def _most_pixels(image: Image.Image, data: bytes, limits: Limits) -> int:
    if image.format != "JPEG":
        return limits.max_pixels_heif if image.format in BOXED else limits.max_pixels_whole
    many = image.width * image.height > limits.max_pixels
    return limits.max_pixels * (SHARE if many and one_scan(data) else 1)


def _name(data: bytes, otherwise: str) -> str:
    """What people call the format."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    return "HEIC" if brand in HEIC_BRANDS else "AVIF" if brand in AVIF_BRANDS else otherwise


def _not_accepted(name: str, limits: Limits) -> PictureError:
    first = limits.formats[0]
    others = f", or one of {', '.join(limits.formats[1:])}" if len(limits.formats) > 1 else ""
    return PictureError("unsupported_format", f"{name} is not accepted here", f"send {first}{others}")


def _unidentified(data: bytes, limits: Limits) -> PictureError:
    if (name := _name(data, "")) and {"HEIC": "HEIF"}.get(name, name) not in FORMATS:
        return _not_accepted(name, limits)
    if name:
        return PictureError("corrupt", f"the {name} cannot be read", "send a complete, undamaged file")
    if tags := _tiff(data):
        what = f"a TIFF with {tags} is not read"
        return PictureError("unsupported_format", what, "save it as PNG, or as TIFF with 8 or 16 bits, unsigned")
    hint = f"send one of {', '.join(limits.formats)}"
    return PictureError("not_an_image", "these bytes are not a picture that can be read", hint)


def _tiff(data: bytes) -> str | None:
    """What values a TIFF says that it holds, if its directory can be read; a damaged one has none."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    try:
        file = io.BytesIO(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if data[2:3] == b"+" or data[3:4] == b"+" else 8))
        file.seek(tags.next)
        tags.load(file)
        kind = {2: "signed", 3: "float"}.get(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0], "unsigned")
        bits = tags[TiffImagePlugin.BITSPERSAMPLE]
    except Exception:  # as in `open_checked`
        return None
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    return f"{len(bits)} {kind} values of {max(bits)} bits for each pixel (photometric interpretation {photometric})"


def _without_words(data: bytes) -> bytes:
    """A PNG without its long texts: Pillow reads them, and gives the picture up where they are too long for it."""
    if not data.startswith(PNG_START) or not any(name in data for name in TEXT):
        return data
    kept, place, start = [], len(PNG_START), 0
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] in TEXT and _is_long(data[place + 4 : place + 8 + length]):
            kept.append(data[start:place])
            start = place + 12 + length
        place += 12 + length
    return b"".join([*kept, data[start:]]) if start else data


def _is_long(chunk: bytes) -> bool:
    """Whether a chunk of text is damaged or unpacks to more than WORDS bytes."""
    kind, (_, _, rest) = chunk[:4], chunk[4:].partition(b"\0")
    packed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
    if len(chunk) > WORDS or not packed:
        return len(chunk) > WORDS
    stream = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        return len(zlib.decompressobj().decompress(stream, WORDS + 1)) > WORDS
    except zlib.error:
        return True
