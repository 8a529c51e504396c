//! Compiles `buildtrail/v1/*.proto` without `protoc`, and generates their protobuf JSON form with the names of the `.proto` files.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "event", "batch", "bundle", "export", "ledger", "ingest", "enrol", "query", "identity", "hunt",
        "access",
    ]
    .map(|name| format!("buildtrail/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(&files, ["."])?;

    let encoded = descriptors.encode_to_vec();
    fs::write(out.join("buildtrail.v1.descriptor.bin"), &encoded)?;

    tonic_prost_build::configure()
        .compile_well_known_types(true)
        // Signed: one order of the counts, so that the same batch is always the same bytes.
        .btree_map("buildtrail.v1.BatchHeader.counts")
        .btree_map("buildtrail.v1.BodiesRemoved.counts")
        .btree_map("buildtrail.v1.Loss.kinds")
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_fds(descriptors)?;

    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .preserve_proto_field_names()
        .build(&[".buildtrail.v1"])?;
    Ok(())
}
