//! A place where an operation waits until a test lets it go on.

use std::sync::Arc;

use tokio::sync::watch;

/// A gate, closed at first. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Sides>);

#[derive(Debug)]
struct Sides {
    reached: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        let closed = || watch::Sender::new(false);
        Self(Arc::new(Sides { reached: closed(), open: closed() }))
    }

    /// Waits until an operation stands at the gate. Cancel safe.
    pub async fn reached(&self) {
        wait_for(&self.0.reached).await;
    }

    /// Opens the gate for good.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    pub(super) async fn pass(&self) {
        self.0.reached.send_replace(true);
        wait_for(&self.0.open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

async fn wait_for(side: &watch::Sender<bool>) {
    // It fails only when the sender is gone, which is borrowed here.
    let _ = side.subscribe().wait_for(|yes| *yes).await;
}
