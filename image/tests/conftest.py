"""The image, and pods as Kubernetes would run it in."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import time

import pytest
import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "charts" / "tests" / "golden"
# A pod's address: the kubelet asks there, never on loopback.
ADDRESS = "10.99.0.1"


class Image:
    """An OCI archive, and its only layer unpacked."""

    def __init__(self, archive, folder):
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "oci", filter="data")
        read = lambda blob: json.loads((folder / "oci/blobs" / blob["digest"].replace(":", "/")).read_text())
        index = json.loads((folder / "oci/index.json").read_text())
        manifest = read(index["manifests"][0])
        self.config = read(manifest["config"])
        self.digest = index["manifests"][0]["digest"]
        self.root = folder / "root"
        [layer] = manifest["layers"]
        with tarfile.open(folder / "oci/blobs" / layer["digest"].replace(":", "/")) as tar:
            self.files = {"/" + member.name.removeprefix("./").rstrip("/"): member for member in tar}
            # Owners and modes as they are: it is ours.
            tar.extractall(self.root, filter="fully_trusted")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Builds the image once more each time that it is called."""

    def build():
        folder = tmp_path_factory.mktemp("image")
        archive = folder / "stagedoor.tar"
        subprocess.run([REPOSITORY / "image/build", os.environ["STAGEDOOR_BIN"], f"oci-archive:{archive}"], check=True)
        return Image(archive, folder)

    return build


@pytest.fixture(scope="session")
def image(built):
    return built()


class Mounted:
    """A folder as the kubelet mounts it: files are links through `..data`, which is swapped when they change."""

    def __init__(self, at, files):
        self.at, self.version = at, 0
        at.mkdir(parents=True)
        self.swap(files)
        for top in {pathlib.Path(name).parts[0] for name in files}:
            (at / top).symlink_to(f"..data/{top}")

    def swap(self, files):
        self.version += 1
        new = self.at / f"..2026_{self.version}"
        for name, text in files.items():
            file = new / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            # Secrets are read through the pod's group (`fsGroup`).
            os.chown(file, 0, 65532)
            file.chmod(0o440)
        (self.at / "..data_tmp").symlink_to(new.name)
        (self.at / "..data_tmp").rename(self.at / "..data")
        shutil.rmtree(self.at / f"..2026_{self.version - 1}", ignore_errors=True)


def config_map(mode):
    """The files of the ConfigMap in a mode's golden file."""
    objects = yaml.safe_load_all((GOLDEN / f"{mode}.yaml").read_text())
    return next(o["data"] for o in objects if o and o["kind"] == "ConfigMap" and "stagedoor.yaml" in o["data"])


class Pod:
    """The process of a pod, seen from outside."""

    def __init__(self, program, log):
        self.program, self.log = program, log

    @property
    def pid(self):
        """Its number out here, 0 while there is none; in there it is 1."""
        children = pathlib.Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children")
        return int((children.read_text().split() or ["0"])[0])

    def within(self, *command):
        return subprocess.run(["nsenter", "-t", str(self.pid), "-n", *command], capture_output=True, text=True)

    def ask(self, path, port=None, scheme="http"):
        """Status and body; status 0 if nobody answers. What the kubelet asks is asked at the pod's address, the rest from within."""
        host = ADDRESS if port or path in ("/livez", "/readyz", "/metrics") else "127.0.0.1"
        port = port or (9902 if host == ADDRESS else 9901)
        said = self.within("curl", "-sk", "-m", "5", "-w", "\n%{http_code}", f"{scheme}://{host}:{port}{path}").stdout
        body, _, status = said.rpartition("\n")
        return int(status or 0), body

    def until(self, what, is_so, seconds=20):
        end = time.monotonic() + seconds
        while not is_so():
            assert self.program.poll() is None, f"it ended\n{self.log.read_text()}"
            assert time.monotonic() < end, f"{what} took too long\n{self.log.read_text()}"
            time.sleep(0.1)

    def status(self):
        lines = pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)

    def kill(self):
        """The process itself: whoever changed its user does not die with its parent."""
        if self.program.poll() is None and self.pid:
            os.kill(self.pid, signal.SIGKILL)
        elif self.program.poll() is None:
            self.program.kill()
        self.program.wait()


# What the runtime does: mounts, a root that is read-only, and no rights for the process, which is the first of its own.
START = """set -eu
ip link set lo up
ip address add $ADDRESS/32 dev lo
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/run"
for folder in "$PODS"/*; do
  name=$(basename "$folder" | tr % /)
  [ -d "$ROOT$name" ] || mkdir -p "$ROOT$name"
  mount --bind "$folder" "$ROOT$name"
  case $name in /var/*) ;; *) mount -o remount,bind,ro "$ROOT$name" ;; esac
done
mount -o remount,bind,ro "$ROOT"
exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups=65532 "$ROOT" "$@"
"""


@pytest.fixture
def pod(image, tmp_path):
    """Starts a pod of the image: `pod({"/etc/stagedoor": {...}})`, with folders that Kubernetes mounts."""
    with contextlib.ExitStack() as ends:

        def start(folders, command=None):
            mounts = tmp_path / "mounts"
            mounted = {}
            for name, files in folders.items():
                mounted[name] = Mounted(mounts / name.replace("/", "%"), files)
            audit = mounts / "%var%lib%stagedoor%audit"
            audit.mkdir(parents=True)
            os.chown(audit, 0, 65532)
            audit.chmod(0o2775)
            for folder in [tmp_path, *tmp_path.parents[:2]]:
                folder.chmod(0o755)
            log = tmp_path / "log"
            env = {"PATH": os.environ["PATH"], "ROOT": str(image.root), "PODS": str(mounts), "ADDRESS": ADDRESS}
            command = command or image.config["config"]["Entrypoint"] + image.config["config"]["Cmd"]
            program = subprocess.Popen(
                ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", START, "start", *command],
                env=env, stdout=log.open("w"), stderr=subprocess.STDOUT,
            )
            made = Pod(program, log)
            ends.callback(made.kill)
            made.mounted, made.audit = mounted, audit
            return made

        yield start


def certificate(folder, name):
    """A certificate as cert-manager lays it out."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=DNS:{name}", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        check=True, capture_output=True,
    )
    return {f"tls/{file}": (folder / file).read_text() for file in ("tls.crt", "tls.key")}
