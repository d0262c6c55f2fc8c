//! Room for recursion.
//!
//! Expressions may nest 250 levels deep, more than the stack of a worker thread has room for. The few that nest deeply
//! are worked on by a thread of their own, which the caller waits for: no task, only a larger stack.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Enough for the deepest nesting; memory is used only as far as the stack grows.
const STACK: usize = 256 << 20;

/// Does the work, with more room if it is `deep`.
pub(crate) fn with_room<T: Send>(deep: bool, work: impl FnOnce() -> T + Send) -> T {
    if !deep {
        return work();
    }
    let work = Mutex::new(Some(work));
    let take = || work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let done = thread::scope(|scope| {
        let worker =
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || take().map(|work| work()));
        match worker {
            Ok(worker) => worker.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // No thread to be had: the stack there is has to do.
            Err(_) => take().map(|work| work()),
        }
    });
    done.unwrap_or_else(|| unreachable!("the work is taken once"))
}
