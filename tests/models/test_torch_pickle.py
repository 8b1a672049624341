import collections
import os
import pickle
import zipfile

import numpy as np
import pytest

from tests.fetched import fetched
from tests.models.conftest import GOLDEN
from zsml_jax.models.torch_pickle import read_torch_pickle


class Call:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def write(path, data: bytes, **members: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, value in members.items():
            archive.writestr(f"archive/data/{name}", value)
    return path


def literal(value) -> bytes:
    """The opcodes that push a value, without the frame around them."""
    return pickle.dumps(value, 2)[2:-1]


def described(storage="FloatStorage", key="0", count=6, offset=0, shape=(2, 3), strides=(3, 1)) -> bytes:
    """A state dict {"x": tensor} as torch pickles it, put together by hand."""
    kind = b"ctorch\n" + storage.encode() + b"\n"
    saved = b"(" + literal("storage") + kind + literal(key) + literal("cpu") + literal(count) + b"tQ"
    rest = b"".join(literal(part) for part in (offset, shape, strides, False))
    return b"\x80\x02}" + literal("x") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + saved + rest + b"}tRs."


SIX = np.arange(6, dtype=np.float32)


def test_tensors_are_read_with_shape_offset_and_strides(tmp_path):
    path = write(tmp_path / "m.bin", described(), **{"0": SIX.tobytes()})
    tensor = read_torch_pickle(path)["x"]
    assert tensor.shape == (2, 3)
    np.testing.assert_array_equal(tensor.read(), SIX.reshape(2, 3))
    path = write(tmp_path / "t.bin", described(shape=(2, 2), strides=(1, 2), offset=1), **{"0": SIX.tobytes()})
    np.testing.assert_array_equal(read_torch_pickle(path)["x"].read(), [[1, 3], [2, 4]])


def stream(path, *, magic=0x1950A86A20F9469CFC6C, protocol=1001, little_endian=True, keys=("0",), count=6):
    """The format before torch 1.6, put together by hand."""
    head = [pickle.dumps(part, 2) for part in (magic, protocol, {"little_endian": little_endian})]
    data = count.to_bytes(8, "little") + SIX.tobytes()
    path.write_bytes(b"".join([*head, described(), pickle.dumps(list(keys), 2), data]))
    return path


def test_the_format_before_torch_1_6_is_read(tmp_path):
    np.testing.assert_array_equal(read_torch_pickle(stream(tmp_path / "m.bin"))["x"].read(), SIX.reshape(2, 3))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"magic": 5}, "this is not a torch checkpoint"),
        ({"protocol": 1002}, "this is not a torch checkpoint"),
        ({"little_endian": False}, "big-endian"),
        ({"keys": ()}, "there are no bytes of tensor 'x'"),
        ({"keys": ("1",)}, "cannot be unpickled: KeyError"),
        ({"count": 7}, "wrong size of tensor 'x'"),
    ],
)
def test_a_malformed_file_of_that_format_is_refused(changed, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_torch_pickle(stream(tmp_path / "m.bin", **changed))


def test_a_cut_file_of_that_format_is_noticed_when_it_is_read(tmp_path):
    path = stream(tmp_path / "m.bin")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="the file ends before the end of tensor 'x'"):
        read_torch_pickle(path)["x"].read()


def test_a_file_of_torch_equals_its_recorded_parameters():
    tensors = read_torch_pickle(GOLDEN / "distilbert" / "pytorch_model.bin")
    assert tensors["embeddings.word_embeddings.weight"].shape == (33, 16)
    assert all(np.isfinite(tensor.read()).all() for tensor in tensors.values())


@pytest.mark.oracle
@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before torch 1.6"])
def test_every_dtype_and_view_equals_torch(zipped, tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    base = torch.randn(4, 6)
    state = {
        "float": base,
        "view": base[1:3, ::2],
        "transposed": base.T,
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "double": base.double(),
        "long": torch.arange(5),
        "bool": base > 0,
        "byte": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base + 1),
    }
    torch.save(collections.OrderedDict(state), tmp_path / "m.bin", _use_new_zipfile_serialization=zipped)
    tensors = read_torch_pickle(tmp_path / "m.bin")
    assert list(tensors) == list(state)
    for name, value in state.items():
        ours = tensors[name].read()
        expected = value.detach()
        assert ours.shape == tuple(expected.shape)
        assert ours.dtype.name == str(expected.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(ours.astype(np.float64), expected.double().numpy())


@pytest.mark.oracle
def test_a_module_s_state_dict_with_its_metadata_is_read(tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    layer = torch.nn.Linear(3, 2)
    torch.save(layer.state_dict(), tmp_path / "m.bin")
    np.testing.assert_array_equal(read_torch_pickle(tmp_path / "m.bin")["weight"].read(), layer.weight.detach())


@pytest.mark.oracle
def test_a_real_file_of_the_format_before_torch_1_6_equals_torch():
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    path = fetched("rxnmapper", "pytorch_model.bin")
    expected = torch.load(path, map_location="cpu", weights_only=True)
    tensors = read_torch_pickle(path)
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name].read(), value.numpy())


@pytest.mark.oracle
def test_a_whole_pickled_module_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.bin")
    with pytest.raises(ValueError, match=r"asks for torch\.nn\.modules\.linear\.Linear.*refused"):
        read_torch_pickle(tmp_path / "m.bin")


def test_code_in_the_pickle_is_refused_and_never_runs(tmp_path):
    evidence = tmp_path / "ran"
    for harm in (Call(os.mkdir, str(evidence)), Call(eval, f"open({str(evidence)!r}, 'w')"), Call(getattr, "", "x")):
        path = write(tmp_path / "m.bin", pickle.dumps({"x": harm}))
        with pytest.raises(ValueError, match=r"the file asks for \w+\.\w+, which is not needed for tensors: refused"):
            read_torch_pickle(path)
        assert not evidence.exists()


def test_an_admitted_function_cannot_be_changed_by_the_pickle(tmp_path):
    # BUILD with slot state would set attributes on whatever find_class returned.
    data = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}q\x00U\x03abcq\x01K\x01s\x86b."
    with pytest.raises(ValueError, match="cannot be unpickled: AttributeError"):
        read_torch_pickle(write(tmp_path / "m.bin", data))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": 5}, "wrong size of tensor 'x'"),
        ({"key": "7"}, "there are no bytes of tensor 'x'"),
        ({"key": "../0"}, "a storage's description is malformed"),
        ({"offset": 1}, "wrong extent of tensor 'x'"),
        ({"strides": (1 << 40, 1)}, "wrong extent of tensor 'x'"),
        ({"strides": (-3, 1)}, "a tensor's description is malformed"),
        ({"shape": (2, -3)}, "a tensor's description is malformed"),
        ({"shape": (2, 3, 1)}, "a tensor's description is malformed"),
        ({"storage": "QInt8Storage"}, r"asks for torch\.QInt8Storage"),
    ],
)
def test_descriptions_that_do_not_fit_the_bytes_are_refused(changed, message, tmp_path):
    path = write(tmp_path / "m.bin", described(**changed), **{"0": SIX.tobytes()})
    with pytest.raises(ValueError, match=message):
        read_torch_pickle(path)


def test_changed_bytes_are_noticed_when_they_are_read(tmp_path):
    path = write(tmp_path / "m.bin", described(), **{"0": SIX.tobytes()})
    path.write_bytes(path.read_bytes().replace(SIX.tobytes(), (SIX + 1).tobytes()))
    with pytest.raises(ValueError, match="is damaged"):
        read_torch_pickle(path)["x"].read()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps([1, 2]), "holds a list, not a dict of tensors"),
        (pickle.dumps({"x": 1}), "holds a int, not a tensor, under 'x'"),
        (b"\x80\x02garbage", "cannot be unpickled"),
        (b"", "cannot be unpickled: EOFError"),
    ],
)
def test_anything_but_a_dict_of_tensors_is_refused(data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_torch_pickle(write(tmp_path / "m.bin", data))


def test_other_archives_and_other_files_are_refused(tmp_path):
    (tmp_path / "text.bin").write_text("hello")
    with pytest.raises(ValueError, match="cannot be unpickled"):
        read_torch_pickle(tmp_path / "text.bin")
    (tmp_path / "pickle.bin").write_bytes(pickle.dumps(3))
    with pytest.raises(ValueError, match="this is not a torch checkpoint"):
        read_torch_pickle(tmp_path / "pickle.bin")
    with zipfile.ZipFile(tmp_path / "zip.bin", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(ValueError, match="not a torch checkpoint"):
        read_torch_pickle(tmp_path / "zip.bin")


def test_big_endian_files_are_refused(tmp_path):
    path = write(tmp_path / "m.bin", described(), **{"0": SIX.tobytes()})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(ValueError, match="big-endian"):
        read_torch_pickle(path)
