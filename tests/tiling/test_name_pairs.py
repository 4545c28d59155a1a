"""Which mask belongs to which image."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landslide.tiling.name_pairs import distinct_numbers, pair_names

PAIRED = {
    "leading zeros": (["image_007.png", "image_012.png"], ["mask_7.tif", "mask_12.tif"]),
    "folders": (["img/1.png", "img/2.png"], ["mask/1.png", "mask/2.png"]),
    "folders in folders": (["a/img/1.png", "b/img/1.png"], ["a/mask/1.png", "b/mask/1.png"]),
    "a suffix": (["river.png", "pass.png"], ["river_mask.png", "pass_mask.png"]),
    "no number": (["north.tif", "south.tif"], ["North-Label.tif", "South-Label.tif"]),
    "a shared date": (["s2_2020_1.tif", "s2_2020_2.tif"], ["gt_2020_1.tif", "gt_2020_2.tif"]),
    "a date of one kind": (["s2_2020_1.tif", "s2_2020_2.tif"], ["label_1.tif", "label_2.tif"]),
    "a satellite": (["S2_1.tif", "S2_2.tif", "S2_3.tif"], ["m1.tif", "m2.tif", "m3.tif"]),
    "rows and columns": (["i_1_2.png", "i_2_1.png"], ["m_01_02.png", "m_02_01.png"]),
    "one pair": (["scene.tif"], ["truth.tif"]),
    "one pair with a number": (["tile_3.tif"], ["mask_003.tif"]),
    "a number that only the images share": (["a_1.tif", "b_1.tif"], ["a_1_m.tif", "b_1_m.tif", "c_2_m.tif"]),
    "accents": (["Täl_1.tif", "Täl_2.tif"], ["Maske_1.tif", "Maske_2.tif"]),
}


@pytest.mark.parametrize("case", PAIRED)
def test_names_are_paired(case):
    images, masks = PAIRED[case]
    found = pair_names(images, masks)
    assert sorted(found.pairs.values()) == sorted(zip(images, masks, strict=False))
    assert (found.images, found.masks, found.twice) == ([], masks[len(images) :], [])


WORDS = st.sampled_from(["img", "S2", "patch", "x", "tile", "2020", "B4", "a-b"])


@given(
    numbers=st.sets(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=12),
    image_words=st.tuples(WORDS, WORDS),
    mask_words=st.tuples(WORDS, WORDS),
    zeros=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_numbers_pair_whatever_stands_around_them(numbers, image_words, mask_words, zeros):
    def path(number: tuple[int, int], words: tuple[str, str], width: int) -> str:
        return f"{words[0]}_{number[0]:0{width}}_{number[1]:0{width}}_{words[1]}.tif"

    images = {path(number, image_words, zeros[0]): number for number in sorted(numbers)}
    masks = {path(number, mask_words, zeros[1]): number for number in sorted(numbers)}
    found = pair_names(list(images), list(masks))
    # A pair is never wrong; a name that its words make unclear may remain without a mask.
    assert all(images[image] == masks[mask] for image, mask in found.pairs.values())
    if not set("".join(image_words + mask_words)) & set("0123456789"):
        assert len(found.pairs) == len(numbers)


def test_what_has_no_partner_is_named_and_the_others_are_paired():
    found = pair_names(["i_1.png", "i_2.png", "i_4.png", "readme.png"], ["m_1.png", "m_2.png", "m_3.png"])
    assert sorted(found.pairs.values()) == [("i_1.png", "m_1.png"), ("i_2.png", "m_2.png")]
    assert found.images == ["i_4.png", "readme.png"]
    assert found.masks == ["m_3.png"]


def test_names_that_mean_the_same_are_named():
    found = pair_names(["i_1.png", "i_01.png", "i_2.png"], ["m_1.png", "m_2.png"])
    assert list(found.pairs.values()) == [("i_2.png", "m_2.png")]
    assert found.twice == [["i_1.png", "i_01.png"]]
    assert found.masks == ["m_1.png"]


def test_two_files_of_different_numbers_are_no_pair():
    found = pair_names(["image_1.png"], ["mask_2.png"])
    assert not found.pairs
    assert (found.images, found.masks) == (["image_1.png"], ["mask_2.png"])


def test_pairs_are_in_natural_order():
    numbers = (10, 9, 100, 1)
    found = pair_names([f"i{n}.png" for n in numbers], [f"m{n}.png" for n in numbers])
    assert [image for image, _ in found.pairs.values()] == ["i1.png", "i9.png", "i10.png", "i100.png"]


@pytest.mark.parametrize(
    ("keys", "numbers"),
    [
        ([(3,), (12,)], [3, 12]),
        ([("tile", 3), ("tile", 12)], [3, 12]),
        ([(2020, 3), (2020, 12)], [3, 12]),
        ([(5,)], [5]),
        ([("river",), ("pass",)], None),
        ([("a", 1), ("b", 1)], None),
        ([(1, 2), (2, 1)], None),
        ([(1,), (10**18,)], None),
    ],
)
def test_numbers_of_names_become_numbers_of_patches(keys, numbers):
    assert distinct_numbers(keys) == numbers
