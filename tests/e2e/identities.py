"""Who callers can prove to be in a test: an issuer of tokens, and an authority for client certificates."""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(value).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Signs tokens with RS256."""

    name: str
    key: rsa.RSAPrivateKey = field(default_factory=_rsa_key)

    def jwks(self) -> str:
        """The public key as a key set."""
        numbers = self.key.public_key().public_numbers()
        modulus, exponent = (
            _encoded(number.to_bytes((number.bit_length() + 7) // 8, "big"))
            for number in (numbers.n, numbers.e)
        )
        return json.dumps({"keys": [{"kty": "RSA", "alg": "RS256", "kid": "1", "n": modulus, "e": exponent}]})

    def token(self, *, alg: str = "RS256", **claims: Any) -> str:
        """A token with these claims, good for a minute unless they say another `exp`."""
        issued = {"iss": self.name, "exp": int(time.time()) + 60} | claims
        signed = f"{_json({'alg': alg, 'kid': '1', 'typ': 'JWT'})}.{_json(issued)}"
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature) if alg != 'none' else ''}"


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


class Authority:
    """Signs certificates; its own, and those it gives out, are PEM files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        own = self._certificate(
            "authority", self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0)
        )
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def certify(self, file: str, name: x509.GeneralName) -> tuple[Path, Path]:
        """A new certificate for this name, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(file, key.public_key(), x509.SubjectAlternativeName([name]))
        chain, secret = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return chain, secret

    def _certificate(
        self, subject: str, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_common_name(subject))
            .issuer_name(_common_name("authority"))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def client(trusted: Path, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client that trusts this authority and shows this certificate."""
    context = ssl.create_default_context(cafile=str(trusted))
    # Python 3.13 asks a test's authority for more than it says.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if shown:
        context.load_cert_chain(*shown)
    return context
