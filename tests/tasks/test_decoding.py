"""Pixels of every kind of file against Pillow's own conversion, or a formula."""

import io
import os
import threading

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax.tasks.decoding import decode, look

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DEEP = np.array([[0, 128, 129, 257], [32768, 40000, 65406, 65535]], np.uint16)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(content):
    return decode(io.BytesIO(content), "here")


@pytest.mark.parametrize(
    "mode, kind",
    [
        ("1", "png"), ("L", "png"), ("P", "png"), ("RGB", "png"), ("LA", "png"), ("RGBA", "png"),
        ("L", "jpeg"), ("RGB", "jpeg"), ("CMYK", "jpeg"), ("RGBA", "webp"), ("CMYK", "tiff"),
        ("LA", "tiff"), ("RGBA", "tiff"), ("P", "gif"), ("RGB", "bmp"),
        ("RGB", "ppm"), ("L", "ppm"),
    ],
)  # fmt: skip
def test_reading_is_that_of_the_field_s_loaders(mode, kind):
    content = saved(PIL.Image.fromarray(COLOURS).convert(mode), kind)
    expected = np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(read(content), expected)
    assert read(content).shape == (5, 7, 3)


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_grey_of_16_bits_is_scaled_to_8(kind):
    content = saved(PIL.Image.fromarray(DEEP), kind)
    expected = np.round(DEEP / 257).astype(np.uint8)
    assert expected.max() == 255 and expected[1, 0] == 128 and expected[0, 2] == 1
    for channel in range(3):
        np.testing.assert_array_equal(read(content)[..., channel], expected)
    assert look(content, whole=True) == ("with 16 bits per channel, scaled to 8",)


def test_big_endian_grey_of_16_bits():
    big = PIL.Image.frombytes("I;16B", (4, 2), DEEP.astype(">u2").tobytes())
    found = read(saved(big, "tiff"))
    np.testing.assert_array_equal(found[..., 0], np.round(DEEP / 257))


def test_grey_of_another_highest_value():
    values = np.array([[0, 500, 1000]], ">u2")
    found = read(b"P5 3 1 1000 " + values.tobytes())
    np.testing.assert_allclose(found[0, :, 0], [0, 127.5, 255], atol=0.5)


def test_colours_of_16_bits():
    wide = RNG.integers(0, 65536, (2, 3, 3)).astype(">u2")
    content = b"P6 3 2 65535 " + wide.tobytes()
    np.testing.assert_allclose(read(content), wide / 257, atol=0.51)
    assert look(content, whole=False) == ("with 16 bits per channel, scaled to 8",)


@pytest.mark.parametrize(
    "image, message",
    [
        (PIL.Image.fromarray(np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)), "floating"),
        (PIL.Image.fromarray(np.full((2, 3), 100, np.float32)), "floating-point numbers"),
        (PIL.Image.fromarray(np.full((2, 3), 100, np.int32)), "32-bit or signed integers"),
        (PIL.Image.new("LAB", (3, 2)), "of mode LAB"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_what_has_no_scale_is_refused(image, message, whole):
    content = saved(image, "tiff")
    with pytest.raises(ValueError, match=f"here: cannot be read.*{message}.*8 bits per channel"):
        read(content)
    with pytest.raises(ValueError, match=message):
        look(content, whole)


def test_grey_of_16_bits_that_pillow_reads_wrong_is_refused():
    content = saved(PIL.Image.fromarray(DEEP), "tiff", tiffinfo={262: 0})  # 0 as white
    with pytest.raises(ValueError, match="0 as white"):
        read(content)


@pytest.mark.parametrize("kind, turned", [("jpeg", False), ("png", False), ("tiff", True)])
def test_a_rotation_in_exif(kind, turned):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    content = saved(PIL.Image.fromarray(COLOURS), kind, exif=exif)
    assert read(content).shape == ((7, 5, 3) if turned else (5, 7, 3))
    words = (
        "rotated as their TIFF tag says" if turned else "with an EXIF rotation, which is ignored"
    )
    assert look(content, whole=True) == (words,)


@pytest.mark.parametrize(
    "image, kind, options",
    [
        (PIL.Image.new("RGBA", (3, 2), (10, 20, 30, 0)), "png", {}),
        (PIL.Image.new("RGB", (3, 2), (10, 20, 30)), "png", {"transparency": (10, 20, 30)}),
        (
            PIL.Image.new("RGB", (3, 2), (10, 20, 30)).quantize(2),
            "png",
            {"transparency": b"\0\x80"},
        ),
    ],
)
def test_transparency_is_dropped(image, kind, options):
    content = saved(image, kind, **options)
    np.testing.assert_array_equal(read(content), np.full((2, 3, 3), (10, 20, 30)))
    assert look(content, whole=True) == ("with transparency, which is dropped",)


def test_of_several_frames_the_first_is_taken():
    frames = [PIL.Image.new("RGB", (3, 2), colour) for colour in ("red", "blue")]
    content = saved(frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read(content), np.full((2, 3, 3), (255, 0, 0)))
    assert look(content, whole=True) == ("with several frames, of which only the first is used",)


@pytest.mark.parametrize("mode, words", [("CMYK", ("in CMYK, converted to RGB",)), ("RGB", ())])
def test_what_is_changed_is_said(mode, words):
    found = look(saved(PIL.Image.new(mode, (3, 2)), "jpeg"), whole=False)
    assert len(found) == len(words) and all(map(str.startswith, found, words))


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "begins with b'<!DOCTYPE html><'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a supported image type"),  # a program, to be run
        (saved(PIL.Image.fromarray(COLOURS), "png")[:-30], "here: cannot be read"),
        (saved(PIL.Image.fromarray(COLOURS), "jpeg")[:-60], "truncated"),
    ],
)
def test_what_is_no_image_is_said(content, reason, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    for file in (io.BytesIO(content), tmp_path / "a.jpg"):
        with pytest.raises(ValueError, match=reason):
            decode(file, "here")


def test_more_pixels_than_pillow_reads(monkeypatch, tmp_path):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    (tmp_path / "large.png").write_bytes(saved(PIL.Image.fromarray(COLOURS), "png"))
    with pytest.raises(ValueError, match="large: cannot be read.*35 pixels.*exceeds"):
        decode(tmp_path / "large.png", "large")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    errors = []

    def attempt():
        with pytest.raises(ValueError, match=r"here: cannot be read.*not a file"):
            decode(tmp_path / "a.jpg", "here")
        errors.append(None)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    assert errors, "it waits"
