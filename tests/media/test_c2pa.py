"""Content Credentials, signed by a chain that the test makes."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipdub.cli.app import app
from lipdub.errors import OutputError, SetupError
from lipdub.media.c2pa import Signing, read_credentials
from lipdub.media.disclosure import SOURCE_TYPE, read_marks

pytest.importorskip("c2pa", reason="needs the extra c2pa")
pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CURVE = ec.SECP256R1()


def named(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def certificate(name: str, key, issuer: str, by, *, authority: bool, days: int = 30) -> bytes:
    now, public = datetime.datetime.now(datetime.UTC), key.public_key()
    uses = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    usage = x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, decipher_only=False, **uses
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(100))
        .not_valid_after(now + datetime.timedelta(days))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not authority:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return made.sign(by, hashes.SHA256()).public_bytes(Encoding.PEM)


def pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def chain(folder: Path, key=None, days: int = 30) -> tuple[Path, Path]:
    root, key = ec.generate_private_key(CURVE), key or ec.generate_private_key(CURVE)
    parts = (
        certificate("signer", key, "root", root, authority=False, days=days),
        certificate("root", root, "root", root, authority=True),
    )
    (folder / "chain.pem").write_bytes(b"".join(parts))
    (folder / "key.pem").write_bytes(pem(key))
    return folder / "chain.pem", folder / "key.pem"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi"])
def test_what_is_signed_is_read_back_and_a_changed_byte_is_noticed(clip, tmp_path, suffix):
    source, unsigned, signed = (tmp_path / f"{name}{suffix}" for name in ("source", "unsigned", "signed"))
    clip(source, n_b=0)
    clip(unsigned, n_frames=9, n_b=0)
    assert read_credentials(unsigned) is None
    Signing(*chain(tmp_path), signed).sign(unsigned, signed, source, "1.2.3", "dubbed")
    found = read_credentials(signed)
    assert (found.state, found.signer, found.generator) == ("intact", "Tests / signer", "lipdub 1.2.3")
    assert found.actions == ("c2pa.opened", f"c2pa.edited {SOURCE_TYPE}")
    assert (found.parents, found.problems) == ((source.name,), ())
    data = bytearray(signed.read_bytes())
    place = data.rindex(bytes(unsigned.read_bytes()[-600:-500])) if suffix == ".avi" else data.index(b"mdat") + 40
    data[place] ^= 1
    signed.write_bytes(data)
    assert read_credentials(signed).state == "broken"
    assert "Hash.mismatch" in read_credentials(signed).verdict


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["P-384", "RSA", "Ed25519"],
)
def test_other_keys(clip, tmp_path, make):
    clip(tmp_path / "a.mp4")
    Signing(*chain(tmp_path, make()), tmp_path / "b.mp4").sign(
        tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "key.pem", "1", "b"
    )
    assert read_credentials(tmp_path / "b.mp4").state == "intact"


def test_a_source_that_had_credentials_keeps_them_as_those_of_the_parent(clip, tmp_path):
    clip(tmp_path / "a.mp4")
    signing = Signing(*chain(tmp_path), tmp_path / "b.mp4")
    signing.sign(tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "a.mp4", "1", "b")
    signing.sign(tmp_path / "a.mp4", tmp_path / "c.mp4", tmp_path / "b.mp4", "2", "c")
    found = read_credentials(tmp_path / "c.mp4")
    assert (found.state, found.parents) == ("intact", ("b.mp4",))


def test_what_cannot_sign_is_refused_at_once(tmp_path):
    certificates, key = chain(tmp_path)
    other = tmp_path / "other.pem"
    output = tmp_path / "o.mp4"
    for data in (pem(ec.generate_private_key(CURVE)), pem(dsa.generate_private_key(2048)), b"nonsense", b""):
        other.write_bytes(data)
        with pytest.raises(SetupError):
            Signing(certificates, other, output)
    with pytest.raises(SetupError, match="cannot read"):
        Signing(certificates, tmp_path / "absent.pem", output)
    other.write_bytes(b"no certificate")
    with pytest.raises(SetupError, match="cannot sign with"):
        Signing(other, key, output)
    with pytest.raises(OutputError, match="no place for Content Credentials"):
        Signing(certificates, key, tmp_path / "o.mkv")
    (tmp_path / "old").mkdir()
    with pytest.raises(SetupError):
        Signing(*chain(tmp_path / "old", days=-10), output)


def test_a_damaged_manifest_is_no_crash(clip, tmp_path):
    clip(tmp_path / "a.mp4")
    Signing(*chain(tmp_path), tmp_path / "b.mp4").sign(
        tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "a.mp4", "1", "b"
    )
    data = (tmp_path / "b.mp4").read_bytes()
    place = data.index(b"jumb")
    for step in range(0, 2000, 97):
        changed = bytearray(data)
        changed[place + step] ^= 0xFF
        (tmp_path / "c.mp4").write_bytes(changed)
        found = read_credentials(tmp_path / "c.mp4")
        assert found is None or found.state in ("broken", "unreadable"), step


def test_a_whole_job_is_signed_and_inspect_says_so(
    face_clip, speech, generator_file, fake_faces, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("lipdub.dub.networks.face_backend", lambda name, config, device: fake_faces())
    video, audio, output = face_clip(lambda n: [(50, 30, 56)], languages=("eng",)), speech(), tmp_path / "o" / "d.mp4"
    output.parent.mkdir()
    (certificates, key), folder = chain(tmp_path), output.parent
    words = ["sync", str(video), str(audio), "-o", str(output), "--weights", str(generator_file), "--device", "cpu"]
    signing = ["--c2pa-cert", str(certificates), "--c2pa-key"]
    other = tmp_path / "other.pem"
    other.write_bytes(pem(ec.generate_private_key(CURVE)))
    track_faces = "lipdub.dub.sync.track_faces"
    with monkeypatch.context() as patch:  # a wrong key is told before the long work, and so is a missing one
        patch.setattr(track_faces, lambda *args, **kwargs: pytest.fail("the long work has begun"))
        for more in ([*signing, str(other)], signing[:2], [*signing, str(other), "--dry-run"]):
            result = CliRunner().invoke(app, [*words, *more])
            assert result.exit_code == SetupError.exit_code, result.output
    assert list(folder.iterdir()) == []
    done = CliRunner().invoke(app, [*words, *signing, str(key)])
    assert done.exit_code == 0, done.output
    assert [path.name for path in folder.iterdir()] == ["d.mp4"]
    assert read_marks(output)["lipdub_version"], "the tags are there, too"
    said = CliRunner().invoke(app, ["inspect", str(output)]).output
    assert "intact since Tests / signer signed it" in said
    assert f"c2pa.edited {SOURCE_TYPE}" in said and f"made from {video.name}" in said
    told = json.loads(CliRunner().invoke(app, ["inspect", "--json", str(output)]).output)
    assert (told["credentials"]["state"], told["credentials_read"]) == ("intact", True)


def test_without_the_extra_signing_is_refused_and_inspect_says_what_it_did_not_read(
    clip, tmp_path, monkeypatch
) -> None:
    clip(tmp_path / "a.mp4")
    monkeypatch.setattr("lipdub.media.c2pa.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"needs c2pa-python"):
        Signing(*chain(tmp_path), tmp_path / "b.mp4")
    assert read_credentials(tmp_path / "a.mp4") is None
    assert "not looked for" in CliRunner().invoke(app, ["inspect", str(tmp_path / "a.mp4")]).output
