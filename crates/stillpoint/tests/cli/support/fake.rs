//! Servers that cannot be had for real here: an old `mongod`, and a `mongos`, of which no free build
//! exists. They answer every command with the same `hello`, which is all that is asked of them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bson::{Document, doc};

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;

/// Answers on a port of 127.0.0.1 for as long as the test runs.
pub struct Fake {
    pub address: String,
}

impl Fake {
    pub fn answering(hello: Document) -> Fake {
        Fake::serving(move |mut stream| while answer(&mut stream, &hello).is_some() {})
    }

    /// A config server as of old.
    pub fn config_server(wire_version: i32) -> Fake {
        Fake::answering(doc! {
            "ismaster": true, "isWritablePrimary": true, "setName": "cfg", "setVersion": 1, "configsvr": 2,
            "hosts": ["127.0.0.1:1"], "minWireVersion": 0, "maxWireVersion": wire_version, "ok": 1,
            "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
        })
    }

    pub fn mongos() -> Fake {
        Fake::answering(doc! {
            "ismaster": true, "isWritablePrimary": true, "msg": "isdbgrid", "minWireVersion": 0,
            "maxWireVersion": 17, "ok": 1, "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
        })
    }

    /// Something else altogether.
    pub fn web_server() -> Fake {
        Fake::serving(|mut stream| {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        })
    }

    fn serving(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, serve) = (stream.unwrap(), serve.clone());
                std::thread::spawn(move || serve(stream));
            }
        });
        Fake { address }
    }

    pub fn uri(&self) -> String {
        format!("mongodb://{}/", self.address)
    }
}

/// Reads one message and answers it in its own kind; `None` at the end.
fn answer(stream: &mut TcpStream, hello: &Document) -> Option<()> {
    let mut header = [0; 16];
    stream.read_exact(&mut header).ok()?;
    let int = |at: usize| i32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (length, id, kind) = (int(0), int(4), int(12));
    let mut rest = vec![0; length as usize - 16];
    stream.read_exact(&mut rest).ok()?;
    let body = bson::serialize_to_vec(hello).unwrap();
    let (kind, prelude) = match kind {
        // Flags, cursor id, first document, number of documents.
        OP_QUERY => (OP_REPLY, [&8i32.to_le_bytes()[..], &[0; 12], &1i32.to_le_bytes()].concat()),
        // Flags, then one section with the body.
        OP_MSG => (OP_MSG, vec![0; 5]),
        _ => return None,
    };
    let length = 16 + prelude.len() + body.len();
    let header: Vec<u8> = [length as i32, 1, id, kind].iter().flat_map(|int| int.to_le_bytes()).collect();
    stream.write_all(&[header, prelude, body].concat()).ok()
}
