"""A private certificate authority, with certificates for 127.0.0.1 and for a client."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """PEM files: the authority's certificate, and certificate and key of a server and of a client."""

    certificate: Path
    host: Path
    client: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """Write all three under `folder`."""
        made = cls(*(folder / f"{name}.pem" for name in ("authority", "host", "client")))
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = _name("test authority")
        made.certificate.write_bytes(_signed(issuer, key, issuer, key, authority=True))
        for path in (made.host, made.client):
            own = ec.generate_private_key(ec.SECP256R1())
            private = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            path.write_bytes(private + _signed(_name(path.stem), own, issuer, key))
        return made

    def server(self, demanding: bool = False) -> ssl.SSLContext:
        """The context of a server on 127.0.0.1; `demanding`: of clients that show a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.host)
        if demanding:
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # of a later one a client may see only the end
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.certificate)
        return context


def _may_sign() -> x509.KeyUsage:
    return x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    by: ec.EllipticCurvePrivateKey,
    authority: bool = False,
) -> bytes:
    """A certificate of `name` and `key`, in PEM, valid from yesterday until tomorrow."""
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
    here: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    extensions: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=authority, path_length=None),
        x509.SubjectAlternativeName(here),
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()),
    ]
    if authority:  # from Python 3.13 on none is trusted without
        extensions.append(_may_sign())
    for extension in extensions:
        critical = isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(by, SHA256()).public_bytes(Encoding.PEM)
