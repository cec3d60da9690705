//! The REST API as a partner calls it.

use std::sync::OnceLock;

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::Value;

/// Where all endpoints are.
pub const BASE_PATH: &str = "/api/v1";

/// Makes requests. It keeps no connection, because those of one test's runtime are of no use to the next.
pub fn http() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        runtime::exit::install_crypto_provider();
        reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .no_proxy()
            .build()
            .unwrap()
    })
}

/// Calls with one key, or with none.
#[derive(Clone, Debug)]
pub struct Client {
    /// `http://host:port`
    origin: String,
    key: Option<String>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// What the body says; `Null` where it is empty or no JSON.
    pub body: Value,
    pub text: String,
}

impl Client {
    /// `origin` is `http://host:port`.
    #[must_use]
    pub fn new(origin: &str, key: Option<&str>) -> Self {
        Self {
            origin: origin.trim_end_matches('/').to_owned(),
            key: key.map(ToOwned::to_owned),
        }
    }

    /// The same place with another key.
    #[must_use]
    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self::new(&self.origin, key)
    }

    /// A request to a path below `/api/v1`, to be changed at will and given to [`Self::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = http().request(method, format!("{}{BASE_PATH}{path}", self.origin));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// # Panics
    /// When there is no answer at all.
    pub async fn send(&self, request: RequestBuilder) -> Response {
        self.try_send(request).await.expect("the API answers")
    }

    /// # Errors
    /// When there is no answer.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Response, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        Ok(Response {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        })
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Response {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Response {
        self.send(self.request(Method::PATCH, path).json(body))
            .await
    }
}

impl Response {
    /// The answer itself, if it has this status.
    ///
    /// # Panics
    /// With the body otherwise.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The code of an error body, or nothing where the body is none.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.body["error"]["code"].as_str()
    }
}
