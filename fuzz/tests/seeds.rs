//! Each target with its seeds, and with what was found before.

use std::{fs, path::Path};

#[test]
fn what_must_hold_does_for_every_seed() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let folders = fs::read_dir(&seeds).unwrap();
    let mut folders: Vec<String> =
        folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    assert_eq!(folders, fuzz::TARGETS.map(|(name, _)| name));
    for (name, check) in fuzz::TARGETS {
        let mut count = 0;
        for seed in fs::read_dir(seeds.join(name)).unwrap() {
            let seed = seed.unwrap().path();
            println!("{}", seed.display());
            check(&fs::read(seed).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
