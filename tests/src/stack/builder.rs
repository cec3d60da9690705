//! Which services a test has, and with which settings.

use tokio::sync::OnceCell;

use super::{Leftovers, Stack};
use crate::service::{Kind, Service};
use crate::{Database, Settings, Vhost, logs};

/// Begins with one of each service.
pub struct Builder {
    apis: usize,
    dispatchers: usize,
    retries: usize,
    settings: Vec<(String, String)>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            apis: 1,
            dispatchers: 1,
            retries: 1,
            settings: Vec::new(),
        }
    }
}

impl Builder {
    #[must_use]
    pub fn apis(mut self, count: usize) -> Self {
        self.apis = count;
        self
    }

    #[must_use]
    pub fn dispatchers(mut self, count: usize) -> Self {
        self.dispatchers = count;
        self
    }

    #[must_use]
    pub fn retries(mut self, count: usize) -> Self {
        self.retries = count;
        self
    }

    /// Only the database, the virtual host and the settings; services are started by the test.
    #[must_use]
    pub fn without_services(self) -> Self {
        self.apis(0).dispatchers(0).retries(0)
    }

    /// Sets `section.key` for all services.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// On the servers of the test run.
    pub async fn start(self) -> Stack {
        logs::start();
        let (database, vhost) = tokio::join!(Database::create(), Vhost::create());
        self.start_on(database, vhost).await
    }

    /// On a database and a virtual host that the caller chose, such as those of private servers.
    pub async fn start_on(self, database: Database, vhost: Vhost) -> Stack {
        let mut settings = Settings::for_tests(&database.url(), vhost.url());
        for (key, value) in &self.settings {
            settings.set(key, value);
        }
        let kinds = [
            (Kind::ManagementApi, self.apis),
            (Kind::Dispatcher, self.dispatchers),
            (Kind::Retry, self.retries),
        ];
        let mut stack = Stack {
            services: Vec::new(),
            processes: Vec::new(),
            amqp: OnceCell::new(),
            settings,
            api: None,
            leftovers: Leftovers::default(),
            finished: false,
            vhost,
            database,
        };
        for (kind, count) in kinds {
            for _ in 0..count {
                stack
                    .services
                    .push(Service::start(kind, &stack.settings).await);
            }
        }
        for service in &stack.services {
            service.until_ready().await;
        }
        let api = stack.services(Kind::ManagementApi).next().map(Service::api);
        stack.api = api;
        stack
    }
}
