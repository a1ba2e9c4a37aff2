//! What the uploads of a context share.

use std::num::NonZeroU64;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::handle::Request;
use super::throttle::Throttle;
use crate::job::Slots;

/// How many parts are uploaded at once, whatever the number of checkpoints.
pub(super) const PARTS_AT_ONCE: usize = 2;

/// The bounds that uploads keep together, and a way to end them all.
pub(crate) struct Uploads {
    pub(super) slots: Slots,
    pub(super) throttle: Throttle,
    requests: Mutex<Vec<Weak<Request>>>,
}

impl Uploads {
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Arc<Self> {
        let (slots, throttle) = (Slots::new(PARTS_AT_ONCE), Throttle::new(bytes_per_second));
        Arc::new(Self { slots, throttle, requests: Mutex::default() })
    }

    /// Has an upload end with the others.
    pub(super) fn note(&self, request: &Arc<Request>) {
        let mut requests = self.requests.lock();
        requests.retain(|request| request.strong_count() > 0);
        requests.push(Arc::downgrade(request));
    }

    /// Tells all to end, and waits for none.
    pub(crate) fn cancel(&self, why: &'static str) {
        let requests = std::mem::take(&mut *self.requests.lock());
        requests.iter().filter_map(Weak::upgrade).for_each(|request| request.cancel(why));
    }
}
