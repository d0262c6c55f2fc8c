//! The process that holds a pod's namespaces: it waits, reaps orphans, and ends when it is told to.

use std::sync::atomic::{AtomicBool, Ordering};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const WNOHANG: i32 = 1;

static STOP: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn pause() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(code: i32) -> !;
}

extern "C" fn stop(_: i32) {
    STOP.store(true, Ordering::SeqCst);
    // SAFETY: _exit may be called from a signal handler.
    unsafe { _exit(0) }
}

extern "C" fn reap(_: i32) {
    // SAFETY: waitpid may be called from a signal handler; a null status is allowed.
    while unsafe { waitpid(-1, std::ptr::null_mut(), WNOHANG) } > 0 {}
}

fn main() {
    // SAFETY: the handlers call only what is allowed in signal handlers.
    unsafe {
        signal(SIGINT, stop);
        signal(SIGTERM, stop);
        signal(SIGCHLD, reap);
    }
    while !STOP.load(Ordering::SeqCst) {
        // SAFETY: pause only waits for a signal.
        unsafe { pause() };
    }
}
