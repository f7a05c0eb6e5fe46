use roxmltree::{Document, Node};

use super::super::testing::comparison;

fn number(node: &Node<'_, '_>, attribute: &str) -> f64 {
    node.attribute(attribute).unwrap().parse().unwrap()
}

/// The bars' classes and ends.
fn bars(image: &str) -> Vec<(String, f64, f64)> {
    let document = Document::parse(image).unwrap();
    let bars = document
        .descendants()
        .filter(|node| node.has_tag_name("rect"));
    bars.map(|bar| {
        let left = number(&bar, "x");
        let class = bar.attribute("class").unwrap().to_owned();
        (class, left, left + number(&bar, "width"))
    })
    .collect()
}

#[test]
fn each_row_has_its_name_and_two_bars() {
    let found = comparison(&[("read <4k>", &[30.0, 10.0]), ("stat", &[5.0, 10.0])]);
    let image = found.svg();
    let document = Document::parse(&image).unwrap();
    let texts: Vec<&str> = document
        .descendants()
        .filter(|node| node.has_tag_name("text"))
        .filter_map(|node| node.text())
        .collect();
    for expected in ["read <4k>", "stat", "3.00x", "0.33x", "0.50x", "2.00x"] {
        assert!(texts.contains(&expected), "{expected}: {texts:?}");
    }
    assert!(texts.iter().any(|text| text.contains("Z80 & co")));
    let bars = bars(&image);
    let classes: Vec<&str> = bars.iter().map(|bar| &*bar.0).collect();
    assert_eq!(classes, ["far", "behind", "far", "behind"]);
    // Both panels: the first bar to the one side of 1, the second to the other.
    assert_eq!(bars[0].1, bars[1].2);
    assert_eq!(bars[2].2, bars[3].1);
}

#[test]
fn all_is_within_the_image() {
    let found = comparison(&[
        ("a", &[1.0, 1000.0]),
        ("b", &[1000.0, 1.0]),
        ("c", &[1.5, 1.0]),
    ]);
    let image = found.svg();
    let document = Document::parse(&image).unwrap();
    let root = document.root_element();
    let (width, height) = (number(&root, "width"), number(&root, "height"));
    for node in document.descendants().filter(Node::is_element) {
        for (attribute, limit) in [("x", width), ("x1", width), ("x2", width), ("y", height)] {
            if node.attribute(attribute).is_some() {
                let place = number(&node, attribute);
                assert!((0.0..=limit).contains(&place), "{node:?}: {place}");
            }
        }
    }
}

#[test]
fn a_row_that_one_does_not_do_has_no_bar() {
    let mut found = comparison(&[("a", &[2.0, 1.0]), ("statx", &[2.0, 1.0])]);
    found.rows[1].outcomes[1].samples = vec![None];
    assert_eq!(bars(&found.svg()).len(), 2);
}

#[test]
fn nothing_is_an_image_too() {
    let image = comparison(&[]).svg();
    assert!(Document::parse(&image).is_ok());
    assert!(bars(&image).is_empty());
}
