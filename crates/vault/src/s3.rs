//! What is special to object stores of the S3 kind.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig, StaticCredentialProvider};
use secrecy::ExposeSecret;

use crate::error::{Answer, Result, VaultError};
use crate::options::{Limits, S3, without_user};

/// How long the environment may take to give credentials; where there is no instance metadata, nobody answers.
const CREDENTIALS: Duration = Duration::from_secs(10);

pub(crate) async fn open(
    bucket: &str,
    prefix: Path,
    shown: &str,
    settings: &S3,
    limits: &Limits,
) -> Result<Arc<dyn ObjectStore>> {
    // A process has one; whoever comes first sets it, and here all are the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = builder(bucket, shown, settings, limits, AmazonS3Builder::from_env())?;
    let anonymous = flag(&builder, AmazonS3ConfigKey::SkipSignature);
    let store = builder.build().map_err(|e| settings_error(shown, e.to_string()))?;
    if !anonymous {
        credentials(&store, shown, CREDENTIALS).await?;
    }
    Ok(if prefix.as_ref().is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) })
}

fn settings_error(shown: &str, why: String) -> VaultError {
    VaultError::Settings { vault: shown.to_owned(), why }
}

fn flag(builder: &AmazonS3Builder, key: AmazonS3ConfigKey) -> bool {
    builder.get_config_value(&key).is_some_and(|value| value == "true")
}

fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

fn builder(
    bucket: &str,
    shown: &str,
    settings: &S3,
    limits: &Limits,
    environment: AmazonS3Builder,
) -> Result<AmazonS3Builder> {
    let allow_http = settings.allow_http || flag(&environment, AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    let endpoint = settings
        .endpoint
        .clone()
        .or_else(|| environment.get_config_value(&AmazonS3ConfigKey::S3Endpoint))
        .or_else(|| environment.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(15),
            base: 2.0,
        },
        max_retries: limits.retries as usize,
        retry_timeout: limits.retry_time,
    };
    let mut builder = environment
        .with_bucket_name(bucket)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), allow_http.to_string())
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), millis(limits.request_timeout))
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), millis(limits.connect_timeout))
        .with_retry(retry)
        .with_virtual_hosted_style_request(!settings.path_style)
        // The other way is not known to every service.
        .with_disable_bulk_delete(true);
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = endpoint {
        let endpoint = endpoint.trim_end_matches('/');
        let Some((scheme, host)) = endpoint.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        else {
            let endpoint = without_user(endpoint);
            return Err(settings_error(shown, format!("the endpoint {endpoint:?} is no `https://HOST:PORT`")));
        };
        if host.contains('@') {
            let endpoint = without_user(endpoint);
            return Err(settings_error(
                shown,
                format!("the endpoint {endpoint:?} names a user: the access key has settings of its own"),
            ));
        }
        if scheme == "http" && !allow_http {
            return Err(settings_error(
                shown,
                format!(
                    "the endpoint {endpoint} is not encrypted on the way: use https, or allow http if it is meant so"
                ),
            ));
        }
        let endpoint = match settings.path_style {
            true => endpoint.to_owned(),
            false => format!("{scheme}://{bucket}.{host}"),
        };
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    match (&settings.access_key_id, &settings.secret_access_key) {
        (None, None) => Ok(builder),
        (Some(key_id), Some(secret)) => {
            // So that nothing of the environment, such as its session token, goes with them.
            Ok(builder.with_credentials(Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: key_id.clone(),
                secret_key: secret.expose_secret().to_owned(),
                token: settings.session_token.as_ref().map(|token| token.expose_secret().to_owned()),
            }))))
        }
        _ => Err(settings_error(shown, "an access key id and a secret access key belong together".into())),
    }
}

/// Whether there are any, within `wait`.
async fn credentials(store: &AmazonS3, shown: &str, wait: Duration) -> Result<()> {
    let why = match tokio::time::timeout(wait, store.credentials().get_credential()).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(e)) => match Answer::from(e) {
            Answer::Failed(why) | Answer::Refused(why) => why,
            _ => "none were found".into(),
        },
        Err(_) => format!("nothing answered within {wait:?}"),
    };
    let vault = shown.to_owned();
    let why = format!(
        "none are in the settings or in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the instance gave none: {why}"
    );
    Err(VaultError::NoCredentials { vault, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(settings: &S3) -> Result<AmazonS3Builder> {
        builder("bucket", "s3://bucket", settings, &Limits::default(), AmazonS3Builder::new())
    }

    #[test]
    fn settings_that_cannot_be_meant_are_refused() {
        let endpoint = |url: &str| S3 { endpoint: Some(url.to_owned()), ..S3::default() };
        for settings in [
            endpoint("http://127.0.0.1:9"),
            endpoint("127.0.0.1:9"),
            endpoint("https://user:hush@127.0.0.1:9"),
            endpoint("user:hush@127.0.0.1:9"),
            S3 { access_key_id: Some("a".into()), ..S3::default() },
            S3 { secret_access_key: Some("s".into()), ..S3::default() },
        ] {
            let refused = built(&settings);
            let Err(e @ VaultError::Settings { .. }) = &refused else { panic!("{settings:?}") };
            assert!(!e.to_string().contains("hush"), "{e}");
        }
    }

    #[test]
    fn the_bucket_is_in_the_host_name_unless_in_the_path() {
        for (path_style, expected) in [(true, "https://host:1"), (false, "https://bucket.host:1")] {
            let settings = S3 { endpoint: Some("https://host:1/".into()), path_style, ..S3::default() };
            let endpoint = built(&settings).unwrap().get_config_value(&AmazonS3ConfigKey::S3Endpoint);
            assert_eq!(endpoint.as_deref(), Some(expected));
        }
    }

    #[tokio::test]
    async fn instance_metadata_that_never_answers_is_not_waited_for() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let store = built(&S3::default()).unwrap().with_metadata_endpoint(endpoint).build().unwrap();
        let refused = credentials(&store, "s3://bucket", Duration::from_millis(300)).await;
        assert!(matches!(refused, Err(VaultError::NoCredentials { .. })), "{refused:?}");
    }
}
