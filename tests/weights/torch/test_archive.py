"""Archives cannot ask for more memory than their size allows."""

import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.weights.torch.file import read_torch
from tests.weights.torch_files import (
    KERNEL,
    Call,
    File,
    Persistent,
    in_zip,
    saved,
)


class TestMemory:
    """Files that ask for far more memory than they have bytes are refused before it is taken."""

    def refuse(self, path, words):
        tracemalloc.start()
        with pytest.raises(InputError, match=words):
            read_torch(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40e6

    def test_expanded_view(self, tmp_path):
        file = File()
        storage = file.store(np.zeros(1, np.float32))
        file.save(tmp_path / "a.pth", {"x": file.view(storage, 0, (10**6, 10**6), (0, 0))})
        self.refuse(tmp_path / "a.pth", "tensors would need 4000000000000")

    def test_many_expanded_views(self, tmp_path):
        file = File()
        storage = file.store(np.zeros(1, np.float32))
        views = {f"x{i}": file.view(storage, 0, (10**6,), (0,)) for i in range(300)}
        file.save(tmp_path / "a.pth", views)
        self.refuse(tmp_path / "a.pth", "tensors would need 1200000000")

    @pytest.mark.parametrize("legacy", [True, False])
    def test_storage_longer_than_the_file(self, tmp_path, legacy):
        file = File(legacy=legacy)
        path = tmp_path / "a.pth"
        storage = file.store(np.zeros(4, np.float32))
        view = file.view(storage, 0, (4,), (1,))
        pid = view.args[0].pid
        pid = (*pid[:4], 10**12, *pid[5:])
        file.save(path, {"x": Call(view.function, (Persistent(pid), *view.args[1:]))})
        self.refuse(path, "not as long as the tensors say")
        if legacy:  # The count beside the elements may lie too.
            content = path.read_bytes()
            path.write_bytes(content[:-24] + struct.pack("<q", 10**12) + content[-16:])
            self.refuse(path, "ends within storage")

    @pytest.mark.parametrize("name", ["archive/data/0", "archive/data.pkl", "archive/other"])
    def test_zip_bomb(self, tmp_path, name):
        path = saved(tmp_path / "a.pth")
        with zipfile.ZipFile(path) as old:
            entries = {entry: old.read(entry) for entry in old.namelist()}
        entries[name] = bytes(100_000_000)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for entry, data in entries.items():
                new.writestr(entry, data)
        del entries
        self.refuse(path, "would unpack to 100")

    def test_zip_bomb_that_lies_about_its_size(self, tmp_path):
        path = in_zip(tmp_path / "a.pth", b"")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            new.writestr("archive/data.pkl", bytes(100_000_000))
        content = path.read_bytes().replace(struct.pack("<I", 100_000_000), struct.pack("<I", 50))
        path.write_bytes(content)
        self.refuse(path, "damaged")


def test_other_zip_archives(tmp_path):
    np.savez(tmp_path / "a.npz", x=KERNEL)
    with pytest.raises(InputError, match="without the 'data.pkl'"):
        read_torch(tmp_path / "a.npz")
    with zipfile.ZipFile(saved(tmp_path / "a.pth"), "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    with pytest.raises(InputError, match="torch.jit.load"):
        read_torch(tmp_path / "a.pth")
