//! The floor for requests: a bare route that returns the bytes of a file.

use anyhow::Result;
use axum::http::header;
use axum::routing::get;

/// Serves the file's bytes on a free port of the loopback, and prints the port.
pub async fn serve(file: &str) -> Result<()> {
    let bytes = axum::body::Bytes::from(std::fs::read(file)?);
    let json = [(header::CONTENT_TYPE, "application/json")];
    let route = get(move || async move { (json, bytes) });
    let path = "/api/atlas/v1.0/groups/{group}/clusters/{cluster}/backupCheckpoints/{checkpoint}";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    axum::serve(listener, axum::Router::new().route(path, route)).await?;
    Ok(())
}
