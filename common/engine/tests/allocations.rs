//! A run allocates nothing once the engine has seen its largest batch, and an engine keeps about what it says.
#![allow(clippy::unwrap_used, unsafe_code, reason = "a counting allocator can only be written that way")]

#[path = "support/releases.rs"]
mod releases;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use releases::{BINARY_MLP, images, integers, layers, preset_release, pruned, release};
use starling_compress::Release;
use starling_engine::{Engine, Inference};
use starling_spec::TaskKind;

thread_local! {
    /// Allocations of this thread, and the bytes that it holds.
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

fn note(count: u64, bytes: i64) {
    COUNT.set(COUNT.get() + count);
    HELD.set(HELD.get() + bytes);
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, i64::try_from(layout.size()).unwrap());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, -i64::try_from(layout.size()).unwrap());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn every_form() -> Vec<(String, Release)> {
    let features = images(20, 0.4, 1);
    let mut releases = Vec::new();
    for name in ["lenet-300-100", "lenet-5"] {
        releases.push((format!("{name} f32"), preset_release(name, 1)));
        releases.push((format!("{name} int8"), integers(preset_release(name, 1), 8, &features)));
        releases.push((format!("{name} pruned"), pruned(preset_release(name, 1), |_| 0.05)));
    }
    releases.push(("binary".into(), release(TaskKind::Classification, &[1, 28, 28], layers(BINARY_MLP), 1)));
    releases
}

#[test]
fn runs_after_the_first_allocate_nothing() {
    let features = images(100, 0.4, 2);
    for (name, release) in every_form() {
        let mut engine = Engine::new(&release).unwrap();
        let mut outputs = Vec::with_capacity(2000);
        engine.run_into(&features, &mut outputs).unwrap();
        engine.run_into(&features[..784], &mut outputs).unwrap();
        for samples in [1, 7, 64, 100, 3] {
            outputs.clear();
            let before = COUNT.get();
            engine.run_into(&features[..samples * 784], &mut outputs).unwrap();
            assert_eq!(COUNT.get(), before, "{name}, {samples} samples");
        }
    }
}

#[test]
fn an_engine_holds_its_weights_and_a_few_activations() {
    for (name, release) in every_form() {
        let before = HELD.get();
        let mut engine = Engine::new(&release).unwrap();
        let mut outputs = Vec::with_capacity(10);
        engine.run_into(&[0.5; 784], &mut outputs).unwrap();
        let held = usize::try_from(HELD.get() - before).unwrap();
        // The largest activation of lenet-5 is 11,520 floats; there are two buffers and padded copies.
        assert!(held < engine.weight_bytes() + 300_000, "{name}: {held} bytes, {} of weights", engine.weight_bytes());
        if name == "lenet-300-100 pruned" {
            assert!(engine.weight_bytes() < 200_000, "{} bytes", engine.weight_bytes());
        }
        if name == "lenet-300-100 int8" {
            assert!(engine.weight_bytes() < 300_000, "{} bytes", engine.weight_bytes());
        }
    }
}
