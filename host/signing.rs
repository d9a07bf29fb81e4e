//! Signatures of plugin files, in the format of minisign: Ed25519 over a BLAKE2b hash of the file.

use std::{fmt, io, time::SystemTime};

use minisign::{KeyPair, SecretKeyBox};
use minisign_verify::{Error, Signature};

/// A key that files may be signed with, as it stands in a `.pub` file: `RW…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    text: String,
    key: minisign_verify::PublicKey,
}

impl PublicKey {
    /// Reads a key, or a `.pub` file, whose first line is a comment.
    ///
    /// # Errors
    /// When it is none, in words for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let key = minisign_verify::PublicKey::from_base64(line)
            .map_err(|_| "is no public key of minisign; it is the line of a `.pub` file that begins with `RW`")?;
        Ok(Self { text: line.to_owned(), key })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a signature counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Something else is in the file.
    #[error("is no signature of minisign")]
    Malformed,
    /// Somebody else's.
    #[error("was made with another key")]
    OtherKey,
    /// Of another file, or forged.
    #[error("is not of this file")]
    OtherFile,
}

/// Checks that one of the keys made this signature over these bytes, and answers what the signer noted in it.
///
/// # Errors
/// When none did.
pub fn verify(keys: &[PublicKey], signature: &str, bytes: &[u8]) -> Result<String, SignatureError> {
    let signature = Signature::decode(signature).map_err(|_| SignatureError::Malformed)?;
    let mut worst = SignatureError::OtherKey;
    for PublicKey { key, .. } in keys {
        // The older kind of signatures is not over a hash, and not needed: nothing was signed before.
        match key.verify(bytes, &signature, false) {
            Ok(()) => return Ok(signature.trusted_comment().to_owned()),
            Err(Error::UnexpectedKeyId) => {}
            Err(Error::UnexpectedAlgorithm | Error::UnsupportedLegacyMode) => worst = SignatureError::Malformed,
            Err(_) => worst = SignatureError::OtherFile,
        }
    }
    Err(worst)
}

/// A new pair of keys, as the contents of a `.key` and of a `.pub` file. With a password the first is encrypted by it.
///
/// # Errors
/// When there are no random numbers to be had.
pub fn generate(password: Option<String>) -> io::Result<(String, String)> {
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password)),
        None => KeyPair::generate_unencrypted_keypair(),
    };
    let texts = pair.and_then(|pair| Ok((pair.sk.to_box(None)?.into_string(), pair.pk.to_box()?.into_string())));
    texts.map_err(io::Error::other)
}

/// Signs the bytes of a file of this name with the contents of a `.key` file. `password` is asked when the key is
/// encrypted.
///
/// # Errors
/// When it is no key, or the password is wrong.
pub fn sign(key: &str, password: impl FnOnce() -> io::Result<String>, name: &str, bytes: &[u8]) -> io::Result<String> {
    let key_box = || SecretKeyBox::from_string(key);
    let unencrypted = key_box().and_then(SecretKeyBox::into_unencrypted_secret_key);
    let key = match unencrypted {
        Ok(key) => key,
        Err(_) => {
            let password = password()?;
            key_box().and_then(|key| key.into_secret_key(Some(password))).map_err(io::Error::other)?
        }
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    // What minisign itself notes. A line is a line, whatever the name.
    let note = format!("timestamp:{now}\tfile:{}\thashed", name.replace(|c: char| c.is_control(), "?"));
    let signature = minisign::sign(None, &key, bytes, Some(&note), None).map_err(io::Error::other)?;
    Ok(signature.into_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with minisign: of the documentation of `minisign-verify`.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const HASHED: &str = "untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1633700835\tfile:test\tprehashed
wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";
    const LEGACY: &str = "untrusted comment: signature from minisign secret key
RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73YiIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=
trusted comment: timestamp:1555779966\tfile:test
QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/VqE81QFuMKI5k/SfNQUaOAA==";

    fn pair() -> (String, PublicKey) {
        let (secret, public) = generate(None).unwrap();
        (secret, PublicKey::parse(&public).unwrap())
    }

    fn signed(key: &str, bytes: &[u8]) -> String {
        sign(key, || panic!("no password is needed"), "x.wasm", bytes).unwrap()
    }

    #[test]
    fn signatures_of_minisign_count() {
        let keys = [PublicKey::parse(KEY).unwrap()];
        assert_eq!(verify(&keys, HASHED, b"test"), Ok("timestamp:1633700835\tfile:test\tprehashed".to_owned()));
        assert_eq!(verify(&keys, HASHED, b"Test"), Err(SignatureError::OtherFile));
        assert_eq!(verify(&keys, LEGACY, b"test"), Err(SignatureError::Malformed));
        assert_eq!(verify(&[], HASHED, b"test"), Err(SignatureError::OtherKey));
        let file = format!("untrusted comment: minisign public key E7620F1842B4E81F\n{KEY}\n");
        assert_eq!(PublicKey::parse(&file).unwrap().to_string(), KEY);
    }

    #[test]
    fn our_own_signatures_count_for_one_of_the_keys() {
        let ((secret, public), (_, other)) = (pair(), pair());
        let signature = signed(&secret, b"bytes");
        let note = verify(&[other.clone(), public.clone()], &signature, b"bytes").unwrap();
        assert!(note.contains("\tfile:x.wasm\t"), "{note:?}");
        assert_eq!(verify(&[public, other.clone()], &signature, b"other"), Err(SignatureError::OtherFile));
        assert_eq!(verify(&[other], &signature, b"bytes"), Err(SignatureError::OtherKey));
    }

    #[test]
    fn what_was_noted_cannot_be_changed() {
        let (secret, public) = pair();
        let signature = signed(&secret, b"bytes").replace("file:x.wasm", "file:y.wasm");
        assert_eq!(verify(&[public], &signature, b"bytes"), Err(SignatureError::OtherFile));
    }

    #[test]
    fn a_damaged_signature_counts_for_nothing() {
        let (secret, public) = pair();
        let signature = signed(&secret, b"bytes");
        let keys = [public];
        for cut in 0..signature.trim_end().len() {
            assert!(verify(&keys, &signature[..cut], b"bytes").is_err(), "cut at {cut}");
        }
        for damaged in ["", "\n\n\n\n", "untrusted comment:\n\n\n", &"x".repeat(10_000)] {
            assert_eq!(verify(&keys, damaged, b"bytes"), Err(SignatureError::Malformed));
        }
    }

    #[test]
    fn an_encrypted_key_wants_its_password() {
        let (secret, public) = generate(Some("sesame".to_owned())).unwrap();
        let keys = [PublicKey::parse(&public).unwrap()];
        let signature = sign(&secret, || Ok("sesame".to_owned()), "x.wasm", b"bytes").unwrap();
        assert!(verify(&keys, &signature, b"bytes").is_ok());
        assert!(sign(&secret, || Ok("wrong".to_owned()), "x.wasm", b"bytes").is_err());
        assert!(sign("no key", || Ok("sesame".to_owned()), "x.wasm", b"bytes").is_err());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for wrong in ["", "RWQ", "untrusted comment: only", &KEY[1..], &format!("{KEY}AAAA")] {
            assert!(PublicKey::parse(wrong).unwrap_err().contains("begins with `RW`"), "{wrong}");
        }
    }
}
