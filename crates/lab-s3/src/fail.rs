//! The layer before the S3 service that makes requests fail.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyDataStream, BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use s3s::service::S3Service;

use crate::fault::{Fault, What};
use crate::process::upload_file;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Reply = Response<UnsyncBoxBody<Bytes, Error>>;

pub(crate) struct Failing {
    service: S3Service,
    folder: PathBuf,
    faults: Mutex<(Vec<Fault>, u64)>,
    /// s3s-fs looks at a condition and then writes: with nothing in between while this is held.
    conditional: tokio::sync::Mutex<()>,
}

impl Failing {
    pub(crate) fn new(service: S3Service, folder: PathBuf) -> Failing {
        Failing { service, folder, faults: Mutex::default(), conditional: tokio::sync::Mutex::default() }
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, (Vec<Fault>, u64)> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, fault: Fault) {
        self.faults().0.push(fault);
    }

    pub(crate) fn clear(&self) {
        self.faults().0.clear();
    }

    pub(crate) fn hits(&self) -> u64 {
        self.faults().1
    }

    fn next(&self, request: &Request<Incoming>) -> Option<What> {
        let (method, target) = (request.method().as_str(), request.uri().to_string());
        let mut faults = self.faults();
        let what = faults.0.iter_mut().find_map(|fault| fault.hits(method, &target).then(|| fault.what.clone()))?;
        faults.1 += 1;
        Some(what)
    }

    /// Answers a request; an error closes the connection.
    pub(crate) async fn call(self: Arc<Self>, request: Request<Incoming>) -> Result<Reply, Error> {
        match self.next(&request) {
            None => self.pass(request.map(s3s::Body::from)).await,
            Some(What::Refuse { status, code }) => {
                // All of it, so that the client is not cut off before it reads the reply.
                request.into_body().collect().await?;
                refusal(status, &code)
            }
            Some(What::Delay { millis }) => {
                let reply = self.pass(request.map(s3s::Body::from)).await;
                tokio::time::sleep(Duration::from_millis(millis)).await;
                reply
            }
            Some(What::CutRequest { bytes }) => {
                self.pass(request.map(|body| s3s::Body::http_body_unsync(cut(body, bytes)))).await?;
                Err("cut in the request".into())
            }
            Some(What::LoseReply) => {
                let reply = self.pass(request.map(s3s::Body::from)).await?;
                // Some of what is done is done while the reply is read.
                reply.into_body().collect().await?;
                Err("the reply is lost".into())
            }
            Some(What::CutReply { bytes }) => {
                Ok(self.pass(request.map(s3s::Body::from)).await?.map(|body| cut(body, bytes).boxed_unsync()))
            }
            Some(What::Corrupt { at }) => {
                let mut passed = 0;
                let flip = move |frame: Frame<Bytes>| {
                    frame.map_data(|data| {
                        let mut data = data.to_vec();
                        if let Some(byte) = usize::try_from(at - passed.min(at)).ok().and_then(|at| data.get_mut(at))
                            && passed <= at
                        {
                            *byte ^= 1;
                        }
                        passed += data.len() as u64;
                        data.into()
                    })
                };
                Ok(self.pass(request.map(s3s::Body::from)).await?.map(|body| body.map_frame(flip).boxed_unsync()))
            }
        }
    }

    async fn pass(&self, request: Request<s3s::Body>) -> Result<Reply, Error> {
        let conditional = request.headers().contains_key(IF_MATCH) || request.headers().contains_key(IF_NONE_MATCH);
        let _alone = if conditional { Some(self.conditional.lock().await) } else { None };
        if request.uri().query().and_then(upload).is_some_and(|id| !upload_file(&self.folder, id).exists()) {
            // s3s-fs says AccessDenied, unlike S3.
            BodyExt::collect(request.into_body()).await?;
            return refusal(404, "NoSuchUpload");
        }
        let reply = self.service.call(request).await.map_err(|e| format!("{e:?}"))?;
        Ok(reply.map(|body| body.boxed_unsync()))
    }
}

fn refusal(status: u16, code: &str) -> Result<Reply, Error> {
    let body = format!("<Error><Code>{code}</Code><Message>the lab says so</Message></Error>");
    let body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
    Ok(Response::builder().status(status).body(body)?)
}

/// The upload in parts that a query is of.
fn upload(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("uploadId="))
}

/// The body as far as `bytes`, then an error.
fn cut<B>(body: B, bytes: u64) -> impl Body<Data = Bytes, Error = Error>
where
    B: Body<Data = Bytes, Error: Into<Error>> + Send + Unpin,
{
    StreamBody::new(cut_stream(BodyDataStream::new(body), bytes).map(|data| data.map(Frame::data)))
}

fn cut_stream<E: Into<Error>>(
    body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    bytes: u64,
) -> impl Stream<Item = Result<Bytes, Error>> {
    stream::unfold(Some((body, bytes)), |state| async move {
        let (mut body, left) = state?;
        match body.next().await {
            Some(Ok(data)) if left > 0 => {
                let data = data.slice(..data.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                let left = left - data.len() as u64;
                if left == 0 {
                    // So that what was let through is on its way before the connection is closed.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Some((Ok(data), Some((body, left))))
            }
            Some(Err(e)) => Some((Err(e.into()), None)),
            Some(Ok(_)) | None => Some((Err("cut".into()), None)),
        }
    })
}
