"""Whether other programs read what `wellposed mri simulate` and `ct reconstruct` write.

    python -m venv v && v/bin/pip install ismrmrd h5py pydicom numpy
    v/bin/python tests/reference/peers.py target/release/wellposed BRAIN.nii.gz

ISMRMRD by ismrmrd-python, cfl by BART (where `bart` is installed), DICOM by pydicom and dciodvfy (dicom3tools). Each is
compared with the same scan or volume in the program's own file. Exits with 1 where they differ.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import h5py
import ismrmrd
import ismrmrd.xsd
import numpy as np
import pydicom

program, volume = sys.argv[1], str(pathlib.Path(sys.argv[2]).resolve())
folder = pathlib.Path(tempfile.mkdtemp())
failures = []


def run(*arguments):
    subprocess.run([program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def check(name, found, limit):
    good = found <= limit
    print(f"{name}: {found:.2e} {'<=' if good else '> '} {limit:.0e}")
    if not good:
        failures.append(name)


def relative(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())


def own(path):
    with h5py.File(path) as f:
        return f["kspace"][...] * f.attrs["scale"], f["mask"][...], f["trajectory"][...] if "trajectory" in f else None


def read_ismrmrd(name, mask):
    run("mri", "simulate", volume, "-o", folder / "own.h5", "--coils", 4, "--mask", mask)
    run("mri", "simulate", volume, "-o", folder / "peer.mrd", "--coils", 4, "--mask", mask)
    kspace, sampled, trajectory = own(folder / "own.h5")
    data = ismrmrd.Dataset(str(folder / "peer.mrd"), "dataset", create_if_needed=False)
    header = ismrmrd.xsd.CreateFromDocument(data.read_xml_header())
    encoding = header.encoding[0]
    matrix = encoding.encodedSpace.matrixSize
    print(f"{name}: {matrix.x} x {matrix.y}, {encoding.trajectory}, {data.number_of_acquisitions()} readouts")
    # Readouts are along x there; where ours are along y, the two have changed their names.
    if header.userParameters and any(p.name == "ReadoutAlongY" for p in header.userParameters.userParameterDouble):
        kspace = kspace.swapaxes(2, 3)
    if trajectory is None:
        assert (matrix.x, matrix.y) == (kspace.shape[3], kspace.shape[2])
    found = np.zeros_like(kspace)
    points = np.zeros(kspace.shape[2:] + (2,))
    for at in range(data.number_of_acquisitions()):
        readout = data.read_acquisition(at)
        line, part = readout.idx.kspace_encode_step_1, readout.idx.slice
        found[part, :, line] = readout.data
        if trajectory is not None:
            points[line] = readout.traj * [matrix.x, matrix.y]
    check(f"{name}: k-space", relative(found, kspace), 1e-6)
    if trajectory is not None:
        check(f"{name}: trajectory", relative(points[..., ::-1], trajectory), 1e-6)
    last = readout.idx.slice
    print(f"{name}: centre of the last slice at {list(np.round(readout.position[:], 3))} mm (LPS)")
    assert last == kspace.shape[0] - 1 and readout.isFlagSet(ismrmrd.ACQ_LAST_IN_SLICE)


def read_cfl(path):
    lengths = [int(n) for n in pathlib.Path(f"{path}.hdr").read_text().splitlines()[1].split()]
    return np.fromfile(f"{path}.cfl", np.complex64).reshape(lengths, order="F")


def bart():
    run("mri", "simulate", volume, "-o", folder / "own.h5", "--coils", 4, "--mask", "equispaced")
    run("mri", "simulate", volume, "-o", folder / "peer.cfl", "--coils", 4, "--mask", "equispaced")
    kspace, _, _ = own(folder / "own.h5")
    subprocess.run(["bart", "fft", "-iu", "3", "peer", "image"], cwd=folder, check=True)
    image = read_cfl(folder / "image")  # [x, y, 1, coil, ..., slice]
    centred = np.fft.fftshift(
        np.fft.ifft2(np.fft.ifftshift(kspace, axes=(2, 3)), norm="ortho"), axes=(2, 3)
    )  # [slice, coil, y, x]
    image = image.reshape(image.shape[0], image.shape[1], image.shape[3], -1).transpose(3, 2, 1, 0)
    check("BART's image of the k-space", relative(image, centred), 1e-5)
    # Along a trajectory: the adjoint NUFFT at our points, of the same numbers, against the sum itself at some pixels.
    run("mri", "simulate", volume, "-o", folder / "own.h5", "--coils", 2, "--mask", "radial")
    run("mri", "simulate", volume, "-o", folder / "peer.cfl", "--coils", 2, "--mask", "radial")
    kspace, _, trajectory = own(folder / "own.h5")
    with h5py.File(folder / "own.h5") as f:
        _, height, width = f["target"].attrs["shape"]
    subprocess.run(
        ["bart", "nufft", "-a", "-d", f"{width}:{height}:1", "peer_traj", "peer", "image"], cwd=folder, check=True
    )
    image = read_cfl(folder / "image")
    image = image.reshape(width, height, image.shape[3], -1).transpose(3, 2, 1, 0)
    pixels = np.random.default_rng(0).integers([0, 0], [height, width], (50, 2))
    centre = [height // 2, width // 2]
    phase = (trajectory.reshape(-1, 2) / [height, width]) @ (pixels - centre).T
    direct = kspace[0, 0].reshape(-1) @ np.exp(2j * np.pi * phase) / np.sqrt(height * width)
    found = image[0, 0][pixels[:, 0], pixels[:, 1]]
    check("BART's adjoint NUFFT", relative(found, direct), 5e-3)


def dicom(name, scan, *reconstruct):
    run(*reconstruct, folder / scan, "-o", f"{folder}/{name}/")
    run(*reconstruct, folder / scan, "-o", folder / "own.h5")
    with h5py.File(folder / "own.h5") as f:
        values, affine = f["volume"][...], f["target"].attrs["affine"].reshape(4, 4)
    files = sorted((folder / name).iterdir())
    slices = [pydicom.dcmread(file) for file in files]
    slices.sort(key=lambda s: int(s.InstanceNumber))
    stored = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices])
    step = max(float(slices[0].RescaleSlope), 1e-5 * np.abs(values).max())
    check(f"DICOM, {name}: values, in steps of the stored numbers", float(np.abs(stored - values).max()) / step, 0.51)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    for k in (0, len(slices) - 1):
        place = lps[:3] @ [0, 0, k, 1]
        check(f"DICOM, {name}: position", float(np.abs(place - slices[k].ImagePositionPatient).max()), 1e-4)
    spacing = [np.linalg.norm(affine[:3, 1]), np.linalg.norm(affine[:3, 0])]
    check(f"DICOM, {name}: spacing", float(np.abs(np.array(slices[0].PixelSpacing) - spacing).max()), 1e-6)
    if shutil.which("dciodvfy"):
        said = subprocess.run(["dciodvfy", files[0]], capture_output=True, text=True).stderr
        print("\n".join(said.splitlines()))
        check(f"DICOM, {name}: errors that dciodvfy finds", said.count("Error"), 0)


read_ismrmrd("ISMRMRD, rows", "partial")
read_ismrmrd("ISMRMRD, columns", "equispaced")
read_ismrmrd("ISMRMRD, radial", "radial")
if shutil.which("bart"):
    bart()
run("ct", "simulate", volume, "-o", folder / "hu.h5", "--unit", "hu", "--views", 30)
dicom("CT in HU", "hu.h5", "ct", "reconstruct", "-m", "fbp")
run("ct", "simulate", volume, "-o", folder / "mu.h5", "--unit", "mu", "--views", 30)
dicom("CT in 1 per mm", "mu.h5", "ct", "reconstruct", "-m", "fbp")
run("mri", "simulate", volume, "-o", folder / "mr.h5", "--coils", 1)
dicom("MR", "mr.h5", "mri", "reconstruct", "-m", "zero-filled")
shutil.rmtree(folder)
sys.exit(bool(failures))
