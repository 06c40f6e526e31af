from __future__ import annotations

import torch

from training.augment import Augment


def test_augmented_features_keep_their_shape_and_lose_no_more_than_the_masks() -> None:
    torch.manual_seed(1)
    features = torch.randn(3, 1001, 64) * 10 - 40
    changed = Augment()(features)
    assert changed.shape == features.shape
    difference = (changed - features).abs()
    assert ((difference > 1e-3) & (difference <= 6.001)).float().mean() > 0.5  # the equaliser's ±6 dB
    masked = changed == changed.flatten().mode().values
    assert 0 < masked.float().mean() < 0.45
    assert not torch.equal(masked[0], masked[1])


def test_four_mels_of_a_recording_share_the_equaliser_but_not_the_masks() -> None:
    torch.manual_seed(2)
    alike = (torch.randn(2, 1, 1001, 64) * 10 - 40).expand(-1, 4, -1, -1)
    masked, plain = Augment()(alike), Augment(masks=False)(alike)
    assert masked.shape == plain.shape == alike.shape
    torch.testing.assert_close(plain[:, 0], plain[:, 3])
    curves = (plain - alike)[:, 0]  # [2, 1001, 64]
    torch.testing.assert_close(curves[:, 0], curves[:, -1], atol=1e-4, rtol=0)
    assert (curves[0, 0] - curves[1, 0]).abs().max() > 0.1
    assert not torch.equal(masked[:, 0], masked[:, 3])
