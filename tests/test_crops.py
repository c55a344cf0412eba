"""Crops at published places, and scores averaged over them."""

from __future__ import annotations

import pytest
import torch

from mdiqa_metric.layers.crops import PatchScores, crop, grid_places, map_chunks, mean_over_crops, tile_places


def published_grid(height, width, size, count):
    """The procedure as systems.md's sources state it, step by step."""
    down, right = (height - size) // int(count**0.5), (width - size) // int(count**0.5)
    side = int(-(-(count**0.5) // 1))
    return [(row * down, column * right) for row in range(side) for column in range(side)][:count]


@pytest.mark.parametrize(("height", "width"), [(384, 512), (225, 333), (224, 224)])
@pytest.mark.parametrize("count", [1, 4, 20, 25])
def test_the_grid_is_the_published_one_within_the_image(height, width, count):
    places = grid_places(height, width, 224, count)
    assert len(places) == count
    assert places == published_grid(height, width, 224, count)
    assert all(0 <= top <= height - 224 and 0 <= left <= width - 224 for top, left in places)


def test_a_generator_draws_places_that_repeat_with_its_seed():
    drawn = [grid_places(300, 400, 224, 50, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(0 <= top <= 76 and 0 <= left <= 176 for top, left in drawn[2])
    assert len({*drawn[0]}) > 40


def test_tiles_cover_what_their_stride_covers_and_the_end_where_asked():
    assert tile_places(64, 96, 32, 32) == [(0, 0), (0, 32), (0, 64), (32, 0), (32, 32), (32, 64)]
    assert tile_places(65, 40, 32, 32, reach_end=True) == [(0, 0), (0, 8), (32, 0), (32, 8), (33, 0), (33, 8)]
    assert tile_places(32, 32, 32, 6, reach_end=True) == [(0, 0)]


@pytest.mark.parametrize("call", [lambda: grid_places(200, 300, 224, 4), lambda: tile_places(300, 200, 224, 32)])
def test_a_small_image_is_refused(call):
    with pytest.raises(ValueError, match=r"224x224 pixels need an image as large, got \d+x\d+: enlarge it"):
        call()


def test_counts_and_strides_below_one_are_refused():
    with pytest.raises(ValueError, match="got 0"):
        grid_places(300, 300, 224, 0)
    with pytest.raises(ValueError, match="stride of 0"):
        tile_places(300, 300, 224, 0)
    with pytest.raises(ValueError, match="chunk of 0"):
        mean_over_crops(lambda x: x, [torch.rand(1, 3, 32, 32)], [(0, 0)], 32, chunk=0)


def test_a_chunk_counts_the_crops_of_all_images():
    seen = []

    def score(crops):
        seen.append(len(crops))
        return crops.mean((1, 2, 3)).bfloat16()

    found = mean_over_crops(score, [torch.rand(4, 3, 64, 64)], tile_places(64, 64, 32, 16), 32, chunk=8)
    assert seen == [8, 8, 8, 8, 4]
    assert found.dtype == torch.float32


def test_crops_are_views_of_the_right_pixels():
    image = torch.rand(2, 3, 40, 50)
    crops = crop(image, [(0, 0), (8, 18)], 32)
    assert torch.equal(crops[:, 0], image[..., :32, :32])
    assert torch.equal(crops[:, 1], image[..., 8:, 18:])


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_mean_does_not_depend_on_chunks_nor_its_gradient(chunk, checkpointing):
    generator = torch.Generator().manual_seed(0)
    image, reference = torch.rand(2, 2, 3, 48, 60, generator=generator, dtype=torch.float64)
    image.requires_grad_()
    places = tile_places(48, 60, 32, 7)

    def score(x, y):
        return torch.stack([(x - y).square().mean((1, 2, 3)), (x * y).mean((1, 2, 3)).tanh()], 1)

    found = mean_over_crops(score, [image, reference], places, 32, chunk, checkpointing)
    each = [score(*(x[..., top : top + 32, left : left + 32] for x in (image, reference))) for top, left in places]
    expected = torch.stack(each).mean(0)
    torch.testing.assert_close(found, expected)
    (ours,) = torch.autograd.grad(found.sum(), image)
    (theirs,) = torch.autograd.grad(expected.sum(), image)
    torch.testing.assert_close(ours, theirs)


def test_crops_have_autograds_derivatives():
    places = tile_places(12, 15, 6, 4, reach_end=True)
    image = torch.rand(2, 3, 12, 15, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(crop(image, places, 6).pow(3).sum(), image, create_graph=True)
    plain = torch.stack([image[..., top : top + 6, left : left + 6] for top, left in places], 1)
    (theirs,) = torch.autograd.grad(plain.pow(3).sum(), image, create_graph=True)
    torch.testing.assert_close(ours, theirs)
    second = [torch.autograd.grad(gradient.square().sum(), image)[0] for gradient in (ours, theirs)]
    torch.testing.assert_close(*second)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_of_rows_change_nothing(chunk):
    rows = torch.rand(2, 7, 4, dtype=torch.float64, requires_grad=True)
    seen = []

    def score(x, y):
        seen.append(len(x))
        return (x * y).tanh().sum(1, keepdim=True)

    found = map_chunks(score, rows.unbind(), chunk)
    assert max(seen) == min(chunk, 7)
    expected = score(*rows)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(each.square().sum(), rows)[0] for each in (found, expected))
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="chunk of 0"):
        map_chunks(score, rows.unbind(), 0)


def test_patches_count_by_their_weights():
    scores = PatchScores(
        torch.tensor([[[[1.0, 4.0]]], [[[2.0, 2.0]]]]), torch.tensor([[[[2.0, 1.0]]], [[[1e-8, 1e-8]]]])
    )
    assert torch.equal(scores.mean(), torch.tensor([2.0, 2.0]))


def test_it_compiles_as_one_graph():
    places = grid_places(48, 60, 32, 4)

    def score(image):
        return mean_over_crops(lambda x: x.square().mean((1, 2, 3)), [image], places, 32, 3)

    image = torch.rand(2, 3, 48, 60)
    torch.testing.assert_close(torch.compile(score, fullgraph=True, backend="eager")(image), score(image))
    torch._dynamo.reset()


def test_a_place_that_comes_several_times_is_scored_once_and_counts_as_often():
    image, seen = torch.rand(2, 3, 40, 50), []
    places = grid_places(40, 50, 40, 5)

    def score(crops):
        seen.append(len(crops))
        return crops.mean((1, 2, 3))

    assert len(places) == 5
    assert len({*places}) == 3
    expected = crop(image, places, 40).mean((1, 2, 3, 4))
    torch.testing.assert_close(mean_over_crops(score, [image], places, 40, chunk=4), expected)
    assert seen == [4, 2]
