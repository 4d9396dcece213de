//! Reading a checkpoint takes no more memory than its largest tensor and a little beside what is asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use hydralora::checkpoint::Checkpoint;
use serde_json::json;

/// Counts the bytes that are allocated, and the most that were at a time.
struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system allocator does everything; the counters neither allocate nor unwind.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(bytes, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on, here and below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What is allowed beside the result and the largest tensor.
const SLACK: usize = 16 << 20;

#[test]
fn reading_takes_the_largest_tensor_beside_the_result() {
    let folder = std::env::temp_dir().join(format!("hydralora-test-{}-memory", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    // 300 MB: twelve modules, whose A take 24 MB each and B 1 MB.
    let (d_in, d_out, rank) = (750_000u64, 31_250, 8);
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for module in 0..12 {
        for (part, [rows, columns]) in [("A", [rank, d_in]), ("B", [d_out, rank])] {
            let start = end;
            end += 4 * rows * columns;
            let info = json!({ "dtype": "F32", "shape": [rows, columns], "data_offsets": [start, end] });
            header.insert(format!("base_model.model.layers.{module}.lora_{part}.weight"), info);
        }
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = folder.join("adapter_model.safetensors");
    std::fs::write(&file, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat())
        .expect("a file");
    // Zeros that take no room.
    let file = std::fs::OpenOptions::new().write(true).open(&file).expect("the file");
    file.set_len(8 + header.len() as u64 + end).expect("a larger file");
    let settings = json!({ "peft_type": "LORA", "r": rank, "lora_alpha": 16 }).to_string();
    std::fs::write(folder.join("adapter_config.json"), settings).expect("a file");

    let before = BYTES.load(Ordering::Relaxed);
    let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
    assert_eq!(checkpoint.modules().len(), 12);
    let mut read = 0;
    let largest = (4 * rank * d_in) as usize;
    for module in checkpoint.modules() {
        MOST.store(BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
        let adapter = checkpoint.adapter(&module.name).expect("a module");
        let result = 4 * (adapter.a.len() + adapter.b[0].len());
        let most = MOST.load(Ordering::Relaxed) - before;
        assert!(most <= result + largest + SLACK, "{most} bytes for {result}");
        read += result as u64;
    }
    assert_eq!(read, end);
    std::fs::remove_dir_all(&folder).expect("the folder");
}
