import numpy as np
import pytest
from PIL import Image

from braincorl.errors import InputError
from braincorl.features.backbones.gabor import (
    GaborConfig,
    envelope_width,
    gabor_features,
    make_bank,
    to_luminance,
)

CONFIG = GaborConfig(image_size=96, frequencies=(2, 4, 8, 16), n_orientations=6)


def grating(config, frequency, degrees, phase=0.0, amplitude=0.3):
    """Waves of light whose stripes are vertical at 0 degrees."""
    pixels = (np.arange(config.image_size) + 0.5) / config.image_size
    x, y = np.meshgrid(pixels, pixels)
    angle = np.deg2rad(degrees)
    wave = np.cos(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return (0.5 + amplitude * wave)[None].astype(np.float32)


def split(features, config):
    """One row of energies -> frequency -> (orientation, y, x)."""
    parts, start = {}, 0
    for f in config.frequencies:
        n = config.n_orientations * f * f
        parts[f] = features[start : start + n].reshape(config.n_orientations, f, f)
        start += n
    return parts


@pytest.mark.parametrize("frequency", [2, 4, 8, 16])
@pytest.mark.parametrize("orientation", range(6))
def test_a_grating_is_recognised_by_its_frequency_and_orientation(frequency, orientation):
    energy = split(gabor_features(grating(CONFIG, frequency, 30 * orientation, phase=0.7), CONFIG)[0], CONFIG)
    mean = np.array([energy[f].mean(axis=(1, 2)) for f in CONFIG.frequencies])
    best = np.unravel_index(mean.argmax(), mean.shape)
    assert (CONFIG.frequencies[best[0]], best[1]) == (frequency, orientation)
    # Away from the border the energy is the grating's amplitude.
    centre = energy[frequency][orientation]
    middle = centre[frequency // 4 : -(frequency // 4) or None, frequency // 4 : -(frequency // 4) or None]
    np.testing.assert_allclose(middle, 0.3, rtol=0.25 if frequency == 2 else 0.02)


def test_energy_does_not_depend_on_phase_but_the_two_phases_do():
    both = GaborConfig(image_size=96, frequencies=(8,), n_orientations=4, output="both")
    centre = np.ravel_multi_index((0, 4, 4), (4, 8, 8))
    responses = np.array([gabor_features(grating(both, 8, 0, phase), both)[0] for phase in np.linspace(0, 6, 9)])
    even, odd, energy = (responses[:, start + centre] for start in (0, 256, 512))
    np.testing.assert_allclose(energy, energy[0], rtol=0.02)
    np.testing.assert_allclose(np.hypot(even, odd), energy, rtol=1e-5)
    assert np.ptp(even) > 0.5
    assert np.ptp(odd) > 0.5


def test_a_uniform_picture_gives_nothing_and_contrast_is_linear():
    uniform = np.full((1, 96, 96), 0.7, dtype=np.float32)
    assert np.abs(gabor_features(uniform, CONFIG)).max() < 1e-6
    weak, strong = (gabor_features(grating(CONFIG, 8, 60, amplitude=a), CONFIG) for a in (0.1, 0.4))
    np.testing.assert_allclose(strong, 4 * weak, atol=1e-5)


def test_a_patch_moves_the_energy_to_its_place():
    picture = np.full((1, 96, 96), 0.5, dtype=np.float32)
    picture[:, :48, 48:] = grating(CONFIG, 8, 0)[:, :48, 48:]  # above, right
    energy = split(gabor_features(picture, CONFIG)[0], CONFIG)[8][0]
    assert np.unravel_index(energy.argmax(), energy.shape)[0] < 4 <= np.unravel_index(energy.argmax(), energy.shape)[1]
    assert energy[5:, :3].max() < 0.01 < 0.2 < energy[:3, 5:].max()


def test_products_equal_the_filters_written_out():
    """Independent implementation: every filter as a picture, in double precision, one dot product each."""
    config = GaborConfig(image_size=32, frequencies=(3,), n_orientations=4, bandwidth=1.3)
    picture = np.random.default_rng(1).random((1, 32, 32))
    pixels = (np.arange(32) + 0.5) / 32
    x, y = np.meshgrid(pixels, pixels)
    expected = []
    for angle in np.pi * np.arange(4) / 4:
        for cy in (1 / 6, 3 / 6, 5 / 6):
            for cx in (1 / 6, 3 / 6, 5 / 6):
                envelope = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * envelope_width(3, 1.3) ** 2))
                envelope /= envelope.sum()
                wave = np.exp(2j * np.pi * 3 * ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)))
                kernel = envelope * (wave - (envelope * wave).sum())
                assert abs(kernel.sum()) < 1e-12
                expected.append(abs(2 * (kernel * picture[0]).sum()))
    np.testing.assert_allclose(gabor_features(picture, config)[0], expected, atol=2e-6)


def test_the_bandwidth_is_the_one_asked_for():
    """At half an octave above and below in all, the response to a grating is half its maximum."""
    config = GaborConfig(image_size=256, frequencies=(16,), n_orientations=1)
    bank = make_bank(16, config)
    centre = np.ravel_multi_index((8, 8), (16, 16))
    half = 16 * (2 - 1) / (2 + 1)  # 1 octave from 16 - half to 16 + half
    low, best, high = (
        gabor_features(grating(config, f, 0), config, [bank])[0, centre] for f in (16 - half, 16, 16 + half)
    )
    np.testing.assert_allclose([low / best, high / best], 0.5, atol=0.01)


def test_pictures_are_independent_of_each_other():
    pictures = np.random.default_rng(2).random((5, 96, 96)).astype(np.float32)
    alone = np.concatenate([gabor_features(picture[None], CONFIG) for picture in pictures])
    np.testing.assert_array_equal(gabor_features(pictures, CONFIG), alone)


def test_luminance_is_light_not_pixel_value_and_the_crop_is_central():
    picture = Image.new("RGB", (30, 10))
    picture.paste((188, 188, 188), (10, 0, 20, 10))
    light = to_luminance(picture, 10)
    assert light.shape == (10, 10)
    np.testing.assert_allclose(light, 0.503, atol=0.002)  # sRGB 188 is half of white's light
    green = to_luminance(Image.new("RGB", (8, 8), (0, 255, 0)), 8)
    np.testing.assert_allclose(green, 0.7152, atol=1e-6)


def test_the_number_of_features_is_as_announced():
    for output in ("energy", "quadrature", "both"):
        config = GaborConfig(image_size=64, frequencies=(1, 3), n_orientations=5, output=output)
        assert gabor_features(np.zeros((2, 64, 64)), config).shape == (2, config.n_features)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frequencies": ()}, "frequencies"),
        ({"frequencies": (0, 2)}, "frequencies"),
        ({"frequencies": (2.5,)}, "frequencies"),
        ({"frequencies": (64,)}, "raise image_size"),
        ({"n_orientations": 0}, "n_orientations"),
        ({"bandwidth": 0.0}, "bandwidth"),
        ({"output": "phase"}, "output"),
    ],
)
def test_impossible_settings_fail_at_birth(settings, message):
    with pytest.raises(InputError, match=message):
        GaborConfig(**settings)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(InputError, match="luminance has shape"):
        gabor_features(np.zeros((1, 10, 10)), CONFIG)
