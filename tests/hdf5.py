"""HDF5 files whose numbers lie elsewhere."""

import h5py


def elsewhere(folder, name, values, layout):
    """File with a dataset `name` of these values that are in another file, in one of four ways."""
    source, path = folder / "source.h5", folder / "outer.h5"
    with h5py.File(source, "w") as file:
        file[name] = values
    with h5py.File(path, "w") as file:
        if layout == "virtual":
            virtual = h5py.VirtualLayout(values.shape, values.dtype)
            virtual[:] = h5py.VirtualSource(source, name, values.shape)
            file.create_virtual_dataset(name, virtual)
        elif layout == "external":
            (folder / "raw.bin").write_bytes(values.tobytes())
            file.create_dataset(name, values.shape, values.dtype, external=[(folder / "raw.bin", 0, values.nbytes)])
        else:
            file[name] = h5py.ExternalLink("nothing.h5" if layout == "link to nothing" else source.name, name)
    return path
