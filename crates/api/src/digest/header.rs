//! The `Authorization: Digest …` header (RFC 7616 §3.4), read strictly.
//!
//! Values may be quoted or not, whatever RFC 7616 says of each: clients differ. What the answer
//! depends on must be there once; what this server never asks for is ignored.

use std::borrow::Cow;

/// Why a header is no Digest answer. For the log only: the client is always challenged anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("it is not Digest")]
    NotDigest,
    #[error("it is not a list of parameters")]
    Malformed,
    #[error("{0} is given twice")]
    Repeated(&'static str),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is not one that this server asks for")]
    Unsupported(&'static str),
}

/// A client's answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'a> {
    pub username: Cow<'a, str>,
    pub nonce: Cow<'a, str>,
    pub uri: Cow<'a, str>,
    pub cnonce: Cow<'a, str>,
    /// The count as it was written, since that is what is hashed.
    pub nc_text: Cow<'a, str>,
    pub nc: u32,
    pub response: [u8; 16],
}

impl<'a> Answer<'a> {
    /// Reads the value of an `Authorization` header for the realm `realm`.
    pub fn parse(header: &'a str, realm: &str) -> Result<Answer<'a>, HeaderError> {
        let mut found = Found::default();
        for parameter in Parameters(scheme(header)?) {
            let (name, value) = parameter?;
            found.keep(name, value)?;
        }
        found.answer(realm)
    }
}

fn scheme(header: &str) -> Result<&str, HeaderError> {
    let (scheme, rest) = header.split_at_checked(6).ok_or(HeaderError::NotDigest)?;
    if !scheme.eq_ignore_ascii_case("Digest") || !rest.starts_with([' ', '\t']) {
        return Err(HeaderError::NotDigest);
    }
    Ok(rest)
}

#[derive(Default)]
struct Found<'a> {
    username: Option<Cow<'a, str>>,
    realm: Option<Cow<'a, str>>,
    nonce: Option<Cow<'a, str>>,
    uri: Option<Cow<'a, str>>,
    cnonce: Option<Cow<'a, str>>,
    nc: Option<Cow<'a, str>>,
    response: Option<Cow<'a, str>>,
    qop: Option<Cow<'a, str>>,
    algorithm: Option<Cow<'a, str>>,
}

impl<'a> Found<'a> {
    fn keep(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), HeaderError> {
        let places = [
            ("username", &mut self.username),
            ("realm", &mut self.realm),
            ("nonce", &mut self.nonce),
            ("uri", &mut self.uri),
            ("cnonce", &mut self.cnonce),
            ("nc", &mut self.nc),
            ("response", &mut self.response),
            ("qop", &mut self.qop),
            ("algorithm", &mut self.algorithm),
        ];
        for (known, place) in places {
            if name.eq_ignore_ascii_case(known) {
                return match place.replace(value) {
                    Some(_) => Err(HeaderError::Repeated(known)),
                    None => Ok(()),
                };
            }
        }
        Ok(())
    }

    fn answer(self, realm: &str) -> Result<Answer<'a>, HeaderError> {
        let missing = HeaderError::Missing;
        if self.realm.ok_or(missing("realm"))? != realm {
            return Err(HeaderError::Unsupported("realm"));
        }
        // Absent means MD5 (RFC 7616 §3.4).
        if self.algorithm.is_some_and(|algorithm| !algorithm.eq_ignore_ascii_case("MD5")) {
            return Err(HeaderError::Unsupported("algorithm"));
        }
        if !self.qop.ok_or(missing("qop"))?.eq_ignore_ascii_case("auth") {
            return Err(HeaderError::Unsupported("qop"));
        }
        let nc_text = self.nc.ok_or(missing("nc"))?;
        let mut response = [0; 16];
        hex::decode_to_slice(self.response.ok_or(missing("response"))?.as_bytes(), &mut response)
            .map_err(|_| HeaderError::Malformed)?;
        Ok(Answer {
            username: self.username.ok_or(missing("username"))?,
            nonce: self.nonce.ok_or(missing("nonce"))?,
            uri: self.uri.ok_or(missing("uri"))?,
            cnonce: self.cnonce.ok_or(missing("cnonce"))?,
            nc: count(&nc_text)?,
            nc_text,
            response,
        })
    }
}

/// `nc` is eight hex digits; the first request with a nonce has 1.
fn count(text: &str) -> Result<u32, HeaderError> {
    if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(HeaderError::Malformed);
    }
    match u32::from_str_radix(text, 16) {
        Ok(nc) if nc > 0 => Ok(nc),
        _ => Err(HeaderError::Malformed),
    }
}

/// The `name=value` pairs of the rest of a header.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<(&'a str, Cow<'a, str>), HeaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Empty list elements are allowed (RFC 9110 §5.6.1.2).
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.0 = "";
        }
        Some(read)
    }
}

impl<'a> Parameters<'a> {
    fn read(&mut self) -> Result<(&'a str, Cow<'a, str>), HeaderError> {
        let (name, rest) = self.0.split_once('=').ok_or(HeaderError::Malformed)?;
        let name = name.trim_end_matches([' ', '\t']);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(HeaderError::Malformed);
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
                let (value, rest) = rest.split_at(end);
                // Not only a token's characters: some clients leave the quotes off a `uri`.
                if value.is_empty() || value.contains('"') {
                    return Err(HeaderError::Malformed);
                }
                (Cow::Borrowed(value), rest)
            }
        };
        let rest = rest.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err(HeaderError::Malformed);
        }
        self.0 = rest;
        Ok((name, value))
    }
}

/// Reads up to the closing quote, and gives what follows it too.
fn unquote(quoted: &str) -> Result<(Cow<'_, str>, &str), HeaderError> {
    let end = quoted.find(['"', '\\']).ok_or(HeaderError::Malformed)?;
    if quoted.as_bytes()[end] == b'"' {
        return Ok((Cow::Borrowed(&quoted[..end]), &quoted[end + 1..]));
    }
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((Cow::Owned(value), &quoted[at + 1..])),
            '\\' => value.push(characters.next().ok_or(HeaderError::Malformed)?.1),
            other => value.push(other),
        }
    }
    Err(HeaderError::Malformed)
}

/// A character of a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
