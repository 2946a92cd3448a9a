import io
import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.formats import openpose21
from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.skeleton import HANDS17
from tests.support import hands

HANDS17_TO_OPENPOSE = [0, 1, 6, 7, 8, 2, 9, 10, 11, 3, 12, 13, 14, 4, 15, 16, 17, 5, 18, 19, 20]

POSES = hands(HANDS17, 5)[0].numpy()
IN_ORDER = POSES[:, HANDS17_TO_OPENPOSE]


def read(path, name="openpose21"):
    return np.concatenate([frames.poses for frames in FORMATS[name].read(path)])


@pytest.fixture
def json_file(tmp_path):
    def write(text):
        path = tmp_path / "poses.json"
        path.write_text(text)
        return path

    return write


class TestArrays:
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int64", "uint16"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_may_have_any_type_of_number_and_any_order_in_memory(self, tmp_path, dtype, order):
        array = np.array(np.abs(IN_ORDER), dtype, order=order)
        np.save(tmp_path / "poses.npy", array)
        np.savez(tmp_path / "poses.npz", array)
        expected = array.astype(np.float32)[:, np.argsort(HANDS17_TO_OPENPOSE)]
        np.testing.assert_array_equal(read(tmp_path / "poses.npy"), expected)
        np.testing.assert_array_equal(read(tmp_path / "poses.npz"), expected)

    @pytest.mark.parametrize("shape", [(5, 63), (5, 14, 3), (5, 21, 2), (21, 3), (2, 5, 21, 3)])
    @pytest.mark.parametrize("ending", [".npy", ".npz"])
    def test_of_another_shape_are_refused(self, tmp_path, shape, ending):
        save = np.save if ending == ".npy" else np.savez
        save(tmp_path / f"poses{ending}", np.ones(shape))
        with pytest.raises(FormatError, match=r"has the shape .* expected numbers of the shape \(N, 21, 3\)"):
            read(tmp_path / f"poses{ending}")

    @pytest.mark.parametrize("dtype", [bool, complex, "U5", "datetime64[s]"])
    def test_of_something_else_than_numbers_are_refused(self, tmp_path, dtype):
        np.save(tmp_path / "poses.npy", np.zeros((5, 21, 3), dtype))
        with pytest.raises(FormatError, match=r"poses\.npy has .* the type .*; expected numbers"):
            read(tmp_path / "poses.npy")

    def test_that_are_in_metres_are_read_and_written_in_metres(self, tmp_path):
        metres = (IN_ORDER / 1000).astype(np.float64)
        np.save(tmp_path / "poses.npy", metres)
        np.testing.assert_allclose(read(tmp_path / "poses.npy", "openpose21-m"), POSES, rtol=1e-6)
        FORMATS["openpose21-m"].write(tmp_path / "again.npy", [Frames(POSES)])
        np.testing.assert_allclose(np.load(tmp_path / "again.npy"), metres, rtol=1e-6)

    @pytest.mark.parametrize("name", ["poses", "xyz", "keypoints"])
    def test_of_several_the_one_with_a_known_name_is_taken(self, tmp_path, name):
        np.savez_compressed(tmp_path / "poses.npz", **{"K": np.eye(3), name: IN_ORDER, "scale": np.ones(5)})
        np.testing.assert_array_equal(read(tmp_path / "poses.npz"), POSES)

    def test_of_one_alone_any_name_will_do(self, tmp_path):
        np.savez(tmp_path / "poses.npz", whatever=IN_ORDER)
        np.testing.assert_array_equal(read(tmp_path / "poses.npz"), POSES)

    @pytest.mark.parametrize("names", [["a", "b"], ["poses", "xyz"]])
    def test_of_several_that_could_all_be_meant_are_refused_with_their_names(self, tmp_path, names):
        np.savez(tmp_path / "poses.npz", **dict.fromkeys(names, IN_ORDER))
        with pytest.raises(
            FormatError, match=rf"has the arrays {', '.join(names)}; expected a single one, or exactly one named"
        ):
            read(tmp_path / "poses.npz")

    def test_are_written_as_poses_that_numpy_reads(self, tmp_path):
        for ending in (".npy", ".npz"):
            FORMATS["openpose21"].write(tmp_path / f"poses{ending}", [Frames(POSES[:2]), Frames(POSES[2:])])
        np.testing.assert_array_equal(np.load(tmp_path / "poses.npy"), IN_ORDER)
        with np.load(tmp_path / "poses.npz") as content:
            assert content.files == ["poses"]
            np.testing.assert_array_equal(content["poses"], IN_ORDER)

    def test_with_a_pickle_in_them_are_refused_and_it_does_not_run(self, tmp_path):
        mark = tmp_path / "ran"

        class Planted:
            def __reduce__(self):
                return os.mkdir, (str(mark),)

        planted = np.full((1, 21, 3), Planted(), object)
        np.save(tmp_path / "poses.npy", planted, allow_pickle=True)
        np.savez(tmp_path / "poses.npz", planted)
        for ending in (".npy", ".npz"):
            with pytest.raises(FormatError, match=f"is not an {ending} file that numpy reads without pickle"):
                read(tmp_path / f"poses{ending}")
        assert not mark.exists()
        with np.load(tmp_path / "poses.npz", allow_pickle=True) as content:
            content["arr_0"]
        assert mark.exists()  # it would have run

    @pytest.mark.parametrize("members", [[], ["a.txt"], ["a.npy"]])
    def test_in_a_zip_without_an_array_are_refused(self, tmp_path, members):
        with zipfile.ZipFile(tmp_path / "poses.npz", "w") as archive:
            for name in members:
                archive.writestr(name, "text")
        with pytest.raises(FormatError, match=r"poses\.npz"):
            read(tmp_path / "poses.npz")

    def test_of_more_than_there_is_memory_for_are_refused(self, tmp_path):
        content = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            content, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 21, 3)}
        )
        with zipfile.ZipFile(tmp_path / "poses.npz", "w") as archive:
            archive.writestr("poses.npy", content.getvalue())
        with pytest.raises(FormatError, match=r"poses\.npz is not an \.npz file that numpy reads"):
            read(tmp_path / "poses.npz")


class TestJson:
    @given(
        indent=st.sampled_from([None, 0, 3, "\t"]),
        separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\n ", ":")]),
        around=st.sampled_from(["", " ", "\n\n", "\r\n\t"]),
        block=st.sampled_from([1500, 2000, 1 << 20]),
    )
    def test_is_a_list_of_frames_however_it_is_laid_out_and_cut_into_pieces(
        self, indent, separators, around, block, tmp_path_factory
    ):
        path = tmp_path_factory.mktemp("json") / "poses.json"
        text = json.dumps(IN_ORDER.astype(float).tolist(), indent=indent, separators=separators)
        path.write_text(f"{around}{text}{around}")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(openpose21, "_BLOCK", block)
            np.testing.assert_array_equal(read(path), POSES)

    def test_may_have_whole_numbers(self, json_file):
        np.testing.assert_array_equal(read(json_file(json.dumps([[[1, 2.5, 3]] * 21]))), [[[1, 2.5, 3]] * 21])

    def test_is_written_as_any_reader_of_json_takes_it(self, tmp_path):
        for name, unit in (("openpose21", 1), ("openpose21-m", 1000)):
            FORMATS[name].write(tmp_path / "poses.json", [Frames(POSES[:2]), Frames(POSES[2:])])
            lists = json.loads((tmp_path / "poses.json").read_text())
            np.testing.assert_allclose(lists, IN_ORDER / unit, rtol=0, atol=1e-4 / unit)

    @pytest.mark.parametrize(
        "flaw",
        [
            [[1, 2, 3]] * 20,
            [[1, 2]] * 21,
            [[1, 2, 3]] * 20 + [[1, 2]],
            [["1", "2", "3"]] * 21,
            [[None, 2, 3]] * 21,
            [[1, 2, 10**400]] * 21,
            [[[1], [2], [3]]] * 21,
            {"poses": 1},
            None,
            5,
            [],
        ],
        ids=lambda flaw: str(flaw)[:20],
    )
    def test_of_a_frame_that_is_no_pose_is_refused_with_its_number(self, json_file, flaw):
        frames = [*IN_ORDER.tolist()[:3], flaw, *IN_ORDER.tolist()[3:]]
        says = r"poses\.json, frame 3 \(counted from 0\) is not 21 lists \[x, y, z\] of numbers"
        with pytest.raises(FormatError, match=says):
            read(json_file(json.dumps(frames)))

    @pytest.mark.parametrize("text", ["{}", '{"poses": []}', "1", "null", '"[', "x"])
    def test_that_is_no_list_is_refused(self, json_file, text):
        with pytest.raises(FormatError, match="is not a list of frames in JSON"):
            read(json_file(text))

    @pytest.mark.parametrize("text", ["", " \n", "[]", "[ ]"])
    def test_without_frames_is_refused(self, json_file, text):
        with pytest.raises(FormatError, match="is empty"):
            read(json_file(text))

    @pytest.mark.parametrize("end", ["", ",", ",]", "]]", "], [1]", "] x"])
    def test_that_does_not_end_as_a_list_is_refused(self, json_file, end):
        with pytest.raises(FormatError, match=r"is not JSON after|ends with a comma"):
            read(json_file(json.dumps(IN_ORDER.tolist())[:-1] + end))

    def test_that_is_nested_without_end_or_has_a_frame_without_end_is_refused(self, json_file, monkeypatch):
        with pytest.raises(FormatError, match=r"is not JSON after 0 frames"):
            read(json_file("[" * 100_000))
        monkeypatch.setattr(openpose21, "_BLOCK", 1000)
        with pytest.raises(FormatError, match="has a frame of more than 1,000 characters"):
            read(json_file("[" + "1, " * 10_000))

    def test_that_is_not_utf_8_is_refused(self, tmp_path):
        (tmp_path / "poses.json").write_bytes(json.dumps(IN_ORDER.tolist()).encode("utf-16"))
        with pytest.raises(FormatError, match="is not UTF-8 text"):
            read(tmp_path / "poses.json")


@pytest.mark.parametrize("name", ["poses.txt", "poses", "poses.NPY"])
def test_another_ending_is_refused_with_those_there_are(tmp_path, name):
    with pytest.raises(FormatError, match=r"has the extension '.*'; expected one of \.npy, \.npz, \.json"):
        read(tmp_path / name)
    with pytest.raises(FormatError, match=r"has the extension '.*'; expected one of \.npy, \.npz, \.json"):
        FORMATS["openpose21"].write(tmp_path / name, [Frames(POSES)])
    assert list(tmp_path.iterdir()) == []
