"""Content Credentials: signing the finished file with a C2PA manifest, and reading the manifest of any file.

Only home of c2pa and cryptography, which come with the extra `c2pa`. Nothing is fetched: no remote manifest, no list of
revoked certificates, no time stamp.
"""

from __future__ import annotations

import io
import json
import mimetypes
import wave
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lipdub.errors import OutputError, SetupError
from lipdub.media.disclosure import SOURCE_TYPE

MIMES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".avi": "video/avi"}
_SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_KEYS = "an elliptic curve (P-256, P-384, P-521), Ed25519 or RSA key of PKCS #8 without a password"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Content of a file's manifest, and whether it is intact."""

    state: str  # intact | broken | unreadable
    signer: str  # whom the certificate names; that it is trustworthy is not looked up
    generator: str  # the software that made it
    actions: tuple[str, ...]  # what was done, with the digital source type
    parents: tuple[str, ...]  # titles of the files that it was made from
    problems: tuple[str, ...]  # C2PA's codes of what does not hold

    @property
    def verdict(self) -> str:
        """In one sentence."""
        if self.state == "intact":
            return f"intact since {self.signer} signed it; whether to trust that signer is not looked up"
        return f"{self.state}: {', '.join(self.problems)}"


class Signing:
    """A key and its certificate, tested once.

    Args:
        certificate: PEM, the signer's own first, then those that vouch for it.
        key: PEM, not encrypted.
        output: the file to be signed.

    Raises:
        SetupError: the extra is absent, a file cannot be read, the two do not belong together, or C2PA does not take
            such a certificate.
        OutputError: a container that holds no manifest.
    """

    def __init__(self, certificate: Path, key: Path, output: Path) -> None:
        if output.suffix.lower() not in MIMES:
            raise OutputError(
                f"{output.suffix} has no place for Content Credentials",
                f"use {', '.join(MIMES)}, or do not sign",
            )
        if not readable():
            raise SetupError("signing needs c2pa-python", 'install it: pip install "lipdub[c2pa]"')
        self._chain, self._key = (_read(path) for path in (certificate, key))
        self._algorithm = _algorithm(key, self._key)
        self._try_out(certificate, key)

    def sign(self, unsigned: Path, output: Path, source: Path, version: str, title: str) -> None:
        """Copy `unsigned` into `output` with a manifest: edited with AI, out of `source`.

        Raises:
            OutputError: it cannot be signed, or what was signed does not hold.
        """
        import c2pa

        agent = {"name": "lipdub", "version": version}
        edited = {"action": "c2pa.edited", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent}
        edited["parameters"] = {"description": "Lip movements altered with AI"}
        manifest = {
            "title": title,
            "claim_generator_info": [agent],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [edited]}}],
        }
        mime, kind = MIMES[output.suffix.lower()], MIMES.get(source.suffix.lower()) or mimetypes.guess_type(source)[0]
        try:
            with c2pa.Builder(manifest, _context()) as builder, self._signer() as signer:
                builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
                with source.open("rb") as parent:
                    ingredient = {"title": source.name, "relationship": "parentOf"}
                    builder.add_ingredient(ingredient, kind or "application/octet-stream", parent)
                with unsigned.open("rb") as plain, output.open("w+b") as made:
                    builder.sign(signer, mime, plain, made)
        except (c2pa.C2paError, OSError) as error:
            raise OutputError(f"the output cannot be signed: {error}", "check the certificate, and the disk") from error
        credentials = read_credentials(output)
        if credentials is None or credentials.state != "intact":
            raise OutputError(
                f"the output's signature does not hold: {credentials and credentials.verdict}", "report it"
            )

    def _signer(self) -> Any:
        import c2pa

        info = c2pa.C2paSignerInfo(self._algorithm, self._chain, self._key, None)
        return c2pa.Signer.from_info(info)

    def _try_out(self, certificate: Path, key: Path) -> None:
        """Sign a moment of silence, which shows all that can be wrong with both files."""
        import c2pa

        silence, signed = io.BytesIO(), io.BytesIO()
        with wave.open(silence, "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(160))
        silence.seek(0)
        try:
            with c2pa.Builder({"assertions": []}, _context()) as builder, self._signer() as signer:
                builder.set_intent(c2pa.C2paBuilderIntent.CREATE, c2pa.C2paDigitalSourceType.DIGITAL_CREATION)
                builder.sign(signer, "audio/wav", silence, signed)
            credentials = _read_back("audio/wav", signed)
        except c2pa.C2paError as error:
            raise SetupError(
                f"cannot sign with {key} and {certificate}: {error}",
                "give the key of the certificate that comes first, and that certificate's whole chain",
            ) from error
        if credentials.state != "intact":
            raise SetupError(
                f"a signature with {certificate} is {credentials.verdict}", "see what C2PA asks of certificates"
            )


def readable() -> bool:
    """Whether manifests can be read and written here."""
    return find_spec("c2pa") is not None


def read_credentials(path: Path) -> Credentials | None:
    """Manifest of a file; None if there is none, the format has none, or c2pa is not installed."""
    mime = MIMES.get(path.suffix.lower())
    if mime is None or not readable():
        return None
    import c2pa

    try:
        with path.open("rb") as file:
            return _read_back(mime, file)
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return Credentials(
            state="unreadable", signer="", generator="", actions=(), parents=(), problems=(str(error).splitlines()[0],)
        )


def _read_back(mime: str, file: Any) -> Credentials:
    import c2pa

    file.seek(0)
    with c2pa.Reader(mime, file, context=_context()) as reader:
        report = json.loads(reader.json())
    manifest = report["manifests"][report["active_manifest"]]
    signature = manifest.get("signature_info", {})
    failures = report.get("validation_results", {}).get("activeManifest", {}).get("failure", ())
    makers = manifest.get("claim_generator_info", [{}])
    actions = [
        action
        for assertion in manifest.get("assertions", ())
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]
    return Credentials(
        state="intact" if report.get("validation_state") in ("Valid", "Trusted") else "broken",
        signer=" / ".join(signature[key] for key in ("issuer", "common_name") if signature.get(key)),
        generator=" ".join(makers[0][key] for key in ("name", "version") if makers[0].get(key)),
        actions=tuple(" ".join(filter(None, (each["action"], each.get("digitalSourceType")))) for each in actions),
        parents=tuple(
            each.get("title", "") for each in manifest.get("ingredients", ()) if each["relationship"] == "parentOf"
        ),
        problems=tuple(each["code"] for each in failures if each["code"] != "signingCredential.untrusted"),
    )


def _context() -> Any:
    import c2pa

    return c2pa.Context.from_dict(_SETTINGS)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}", "check --c2pa-cert and --c2pa-key") from error


def _algorithm(path: Path, pem: bytes) -> str:
    """C2PA's name of the signature that a key makes."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SetupError(f"invalid private key {path}: {error}", f"give {_KEYS}") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size in (256, 384, 521):
        return {256: "es256", 384: "es384", 521: "es512"}[key.key_size]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise SetupError(f"{path} is a key of a kind that C2PA does not take", f"give {_KEYS}")
