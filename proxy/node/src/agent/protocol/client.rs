//! The proxy's (or an operator's) end.

use std::{io, path::Path, sync::Arc};

use super::{
    Ask, Hello, Link, LinkError, MapDescriptors, Message, News, PATIENCE, Refusal, Request, VERSION, Welcome,
    news::Parts,
};

/// A connection to the agent that was welcomed.
#[derive(Debug)]
pub struct Client {
    /// Asks.
    pub sender: Sender,
    /// Hears.
    pub receiver: Receiver,
    /// The agent's greeting.
    pub welcome: Welcome,
    /// The maps; there for a proxy.
    pub maps: Option<MapDescriptors>,
}

/// The asking half; may be shared between tasks.
#[derive(Debug, Clone)]
pub struct Sender(Arc<Link>);

/// The hearing half.
#[derive(Debug)]
pub struct Receiver {
    link: Arc<Link>,
    parts: Parts,
}

/// Why there is no connection to the agent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens at the path, or not for us.
    #[error("the agent cannot be reached at {path}: {error}")]
    Unreachable {
        /// The socket.
        path: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// Somebody else than root listens there: nothing it says is believed.
    #[error("the socket {path} is served by user {user}, not by root")]
    NotRoot {
        /// The socket.
        path: String,
        /// Who listens.
        user: u32,
    },
    /// The agent speaks another version.
    #[error("the agent speaks version {0}, we {VERSION}: run agent and proxy of the same release")]
    Version(u32),
    /// The agent does not welcome us.
    #[error("the agent refuses us: {1}")]
    Refused(Refusal, String),
    /// The connection failed.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// The id of the first request, which is hello.
const HELLO: u64 = 0;

impl Client {
    /// Connects and says hello, within [`PATIENCE`].
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn connect(path: &Path, hello: Hello) -> Result<Self, ConnectError> {
        Self::connect_to(path, hello, 0).await
    }

    /// As [`Client::connect`], for an agent that is the user `agent` (0 but in tests).
    pub(crate) async fn connect_to(path: &Path, hello: Hello, agent: u32) -> Result<Self, ConnectError> {
        let unreachable = |error| ConnectError::Unreachable { path: path.display().to_string(), error };
        let link = Link::connect(path).map_err(unreachable)?;
        let (user, _) = link.peer().map_err(unreachable)?;
        if user != agent {
            return Err(ConnectError::NotRoot { path: path.display().to_string(), user });
        }
        let link = Arc::new(link);
        let sender = Sender(Arc::clone(&link));
        let mut receiver = Receiver { link, parts: Parts::default() };
        sender.ask(HELLO, Ask::Hello(hello)).await?;
        let first =
            tokio::time::timeout(PATIENCE, receiver.next()).await.map_err(|_| LinkError::Timeout)??;
        match first {
            (Some(HELLO), News::Welcome(welcome, maps)) if welcome.version == VERSION => {
                Ok(Self { sender, receiver, welcome, maps })
            }
            (Some(HELLO), News::Welcome(welcome, _)) => Err(ConnectError::Version(welcome.version)),
            (_, News::Refused(reason, detail)) => Err(ConnectError::Refused(reason, detail)),
            _ => Err(LinkError::Malformed("no welcome".to_owned()).into()),
        }
    }
}

impl Sender {
    /// Asks; the answer comes through the [`Receiver`] with the same id.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is of no more use.
    pub async fn ask(&self, id: u64, ask: Ask) -> Result<(), LinkError> {
        self.0.send(&Request { id, ask }, &[]).await
    }
}

impl Receiver {
    /// What the agent says next, and which request it answers. May be abandoned at any await.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is of no more use.
    pub async fn next(&mut self) -> Result<(Option<u64>, News), LinkError> {
        loop {
            let packet = self.link.receive::<Message>().await?;
            if let Some(news) = self.parts.take(packet)? {
                return Ok(news);
            }
        }
    }
}
