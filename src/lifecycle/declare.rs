//! How an enum gets its lifecycle.

/// Declares the lifecycle of an enum: a row for each variant with those that may follow it, the first stage first.
///
/// It implements [`Staged`](crate::lifecycle::Staged). The compiler refuses a variant without a row, a stage that cannot
/// be reached, and everything else that is no [`Lifecycle`](crate::lifecycle::Lifecycle). What variants hold does not
/// matter to it.
///
/// An aggregate that names its stage is guarded by the repository: a decision or a save whose events lead, one after
/// the other, to a transition that is not declared is refused with
/// [`RepositoryError::Transition`](crate::RepositoryError::Transition), and nothing is stored.
///
/// ```
/// use cim_persistence::lifecycle::{InvalidTransition, Stage};
/// use cim_persistence::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// enum Status { Draft, Placed, Shipped, Cancelled }
///
/// cim_persistence::lifecycle!(Status {
///     Draft => [Placed, Cancelled],
///     Placed => [Shipped, Cancelled],
///     Shipped => [],
///     Cancelled => [],
/// });
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order { id: String, status: Status }
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// enum OrderEvent { Placed, Shipped }
///
/// impl DomainEvent for OrderEvent {
///     fn event_type(&self) -> &'static str {
///         match self { Self::Placed => "placed", Self::Shipped => "shipped" }
///     }
/// }
///
/// impl Aggregate for Order {
///     const TYPE: &'static str = "order";
///     type Id = String;
///     type Event = OrderEvent;
///     fn new(id: &String) -> Self { Self { id: id.clone(), status: Status::Draft } }
///     fn id(&self) -> &String { &self.id }
///     fn apply(&mut self, event: &OrderEvent) {
///         self.status = match event {
///             OrderEvent::Placed => Status::Placed,
///             OrderEvent::Shipped => Status::Shipped,
///         }
///     }
///     fn stage(&self) -> Option<Stage> { Some(self.status.stage()) }
/// }
///
/// struct Ship;
///
/// impl Handle<Ship> for Order {
///     type Rejection = InvalidTransition;
///     fn handle(&self, _: &Ship) -> Result<Vec<OrderEvent>, InvalidTransition> {
///         self.status.transition(&Status::Shipped, [OrderEvent::Shipped])
///     }
/// }
///
/// let mut order = Order::new(&"42".to_owned());
/// let error = order.handle(&Ship).unwrap_err();
/// assert_eq!(error.to_string(), "Draft may not become Shipped; it may become Placed or Cancelled");
/// order.apply(&OrderEvent::Placed);
/// assert_eq!(order.handle(&Ship), Ok(vec![OrderEvent::Shipped]));
/// order.apply(&OrderEvent::Shipped);
/// assert_eq!(order.handle(&Ship), Ok(vec![]), "it is shipped already");
/// assert!(Status::LIFECYCLE.to_string().starts_with("stateDiagram-v2"));
/// ```
///
/// A stage that cannot be reached does not compile:
///
/// ```compile_fail,E0080
/// enum Status { Draft, Placed, Lost }
/// cim_persistence::lifecycle!(Status { Draft => [Placed], Placed => [], Lost => [Placed] });
/// ```
///
/// Nor does one without a row:
///
/// ```compile_fail,E0004
/// enum Status { Draft, Placed, Lost }
/// cim_persistence::lifecycle!(Status { Draft => [Placed], Placed => [] });
/// ```
#[macro_export]
macro_rules! lifecycle {
    ($stages:ty { $($stage:ident => [$($follower:ident),* $(,)?]),+ $(,)? }) => {
        const _: () = {
            // A constant of its own is looked at by the compiler even if nobody uses it.
            const CHECKED: $crate::lifecycle::Lifecycle = {
                let rows = &[$((stringify!($stage), &[$(stringify!($follower)),*] as &[&str])),+];
                match $crate::lifecycle::Lifecycle::new(rows) {
                    Ok(lifecycle) => lifecycle,
                    Err(error) => panic!("{}", error.reason()),
                }
            };
            impl $crate::lifecycle::Staged for $stages {
                const LIFECYCLE: &'static $crate::lifecycle::Lifecycle = &CHECKED;
                fn stage(&self) -> $crate::lifecycle::Stage {
                    let name = match self {
                        $(Self::$stage { .. } => stringify!($stage)),+
                    };
                    $crate::lifecycle::Stage::new(Self::LIFECYCLE, name)
                }
            }
        };
    };
}
