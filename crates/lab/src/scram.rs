//! SCRAM-SHA-256 (RFC 7677), the client's side, as MongoDB's `saslStart` speaks it.

use anyhow::{Context, Result, ensure};
use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use rand::RngCore;
use ring::{digest, hmac, pbkdf2};

use crate::wire::{Connection, Credentials};

const GS2_HEADER: &str = "n,,";
/// base64 of the header above.
const CHANNEL_BINDING: &str = "biws";

/// Logs `connection` in. User and password must be plain ASCII without `,` and `=`, which the
/// lab's own are, so no SASLprep is needed.
pub async fn log_in(connection: &mut Connection, credentials: &Credentials) -> Result<()> {
    let mut random = [0; 24];
    rand::rng().fill_bytes(&mut random);
    let nonce = encode(&random);
    let first_bare = format!("n={},r={nonce}", credentials.user);
    let reply = connection
        .run(
            "admin",
            doc! {
                "saslStart": 1,
                "mechanism": "SCRAM-SHA-256",
                "payload": payload(&format!("{GS2_HEADER}{first_bare}")),
                "options": {"skipEmptyExchange": true},
            },
        )
        .await?;
    let server_first = text(&reply)?;
    let server_nonce = attribute(&server_first, "r=")?;
    ensure!(server_nonce.starts_with(&nonce), "the server's nonce is not ours");
    let salt = Binary::from_base64(attribute(&server_first, "s=")?, BinarySubtype::Generic)?.bytes;
    let rounds: u32 = attribute(&server_first, "i=")?.parse().context("no iteration count")?;

    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds.try_into().context("no iterations")?,
        &salt,
        credentials.password.as_bytes(),
        &mut salted,
    );
    let client_key = sign(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let final_bare = format!("c={CHANNEL_BINDING},r={server_nonce}");
    let message = format!("{first_bare},{server_first},{final_bare}");
    let signature = sign(stored_key.as_ref(), message.as_bytes());
    let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();

    let conversation = reply.get("conversationId").cloned().context("no conversationId")?;
    let reply = connection
        .run(
            "admin",
            doc! {
                "saslContinue": 1,
                "conversationId": conversation,
                "payload": payload(&format!("{final_bare},p={}", encode(&proof))),
            },
        )
        .await?;
    let server_key = sign(&salted, b"Server Key");
    let expected = encode(sign(server_key.as_ref(), message.as_bytes()).as_ref());
    ensure!(attribute(&text(&reply)?, "v=")? == expected, "the server does not know the password either");
    ensure!(reply.get_bool("done").unwrap_or(false), "the server wants more");
    Ok(())
}

fn sign(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

fn payload(text: &str) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: text.as_bytes().to_vec() }
}

fn text(reply: &Document) -> Result<String> {
    let bytes = reply.get_binary_generic("payload").context("no payload")?;
    String::from_utf8(bytes.clone()).context("the payload is not text")
}

fn attribute<'a>(message: &'a str, name: &str) -> Result<&'a str> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name))
        .with_context(|| format!("no {name} in the server's message"))
}

/// base64, standard alphabet with padding.
fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            if index <= group.len() {
                out.push(ALPHABET[(word >> (18 - 6 * index)) as usize & 63] as char);
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::encode;

    /// RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), encoded);
        }
    }
}
