//! The stylesheet and the scripts, each under a path that holds the hash of its content: a browser keeps them
//! for as long as it likes, and a new program brings new paths.

use std::io::Write as _;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

macro_rules! assets {
    ($($name:literal $kind:literal),* $(,)?) => {
        &[$(($name, $kind, include_bytes!(concat!("../../assets/", $name)))),*]
    };
}

type Source = (&'static str, &'static str, &'static [u8]);

const SOURCES: &[Source] = assets!(
    "style.css" "text/css; charset=utf-8",
    "app.js" "text/javascript; charset=utf-8",
    "tasks.js" "text/javascript; charset=utf-8",
    "keys.js" "text/javascript; charset=utf-8",
    "favicon.svg" "image/svg+xml",
);

struct Asset {
    name: &'static str,
    path: String,
    kind: HeaderValue,
    plain: Bytes,
    packed: Bytes,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    SOURCES
        .iter()
        .map(|&(name, kind, content)| {
            let hash: String =
                Sha256::digest(content)[..6].iter().map(|byte| format!("{byte:02x}")).collect();
            Asset {
                name,
                path: format!("/assets/{hash}/{name}"),
                kind: HeaderValue::from_static(kind),
                plain: Bytes::from_static(content),
                packed: gzip(content, Compression::best()),
            }
        })
        .collect()
});

/// Packs bytes.
pub fn gzip(content: &[u8], level: Compression) -> Bytes {
    let mut packer = GzEncoder::new(Vec::with_capacity(content.len() / 3), level);
    // Writing to a Vec cannot fail.
    let _ = packer.write_all(content);
    Bytes::from(packer.finish().unwrap_or_default())
}

/// Does the caller take gzip?
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let named = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip") && quality.replace(' ', "") != "q=0"
    })
}

/// Where an asset is.
pub fn path(name: &str) -> &'static str {
    ASSETS.iter().find(|asset| asset.name == name).map_or("/assets/missing", |asset| &asset.path)
}

/// Serves one. One of another version is not there.
pub async fn serve(headers: HeaderMap, Path((hash, name)): Path<(String, String)>) -> Response {
    let wanted = format!("/assets/{hash}/{name}");
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == wanted) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let packed = takes_gzip(&headers);
    let mut response = if packed { &asset.packed } else { &asset.plain }.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, asset.kind.clone());
    let always = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(CACHE_CONTROL, always);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_asset_has_a_path_of_its_own() {
        let mut paths: Vec<&str> = SOURCES.iter().map(|source| path(source.0)).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), SOURCES.len());
        assert_eq!(path("other.css"), "/assets/missing");
    }

    #[test]
    fn gzip_is_sent_to_who_takes_it() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            takes_gzip(&headers)
        };
        assert!(of("gzip, deflate, br"));
        assert!(of("br;q=1.0, GZIP;q=0.8"));
        assert!(!of("br, deflate"));
        assert!(!of("gzip;q=0"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
