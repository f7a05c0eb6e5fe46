/// The memory of a list, kept while the list is not in use: it lends things, and the next list
/// lends others. So no list is allocated for each request, and none is larger than it has to be.
///
/// A list of a fixed size on the stack would do, too; but of a frame that large each page is touched
/// when it is entered, on every thread, however short the list.
#[derive(Debug, Default)]
pub(crate) struct Storage(Vec<Place>);

/// As large as an element of the lists that are kept here: that makes their memory one another's.
type Place = [usize; 3];

impl Storage {
    /// An empty list, in this memory.
    pub(crate) fn into_list<T>(self) -> Vec<T> {
        recycle(self.0)
    }

    /// The memory of `list`.
    pub(crate) fn of<T>(list: Vec<T>) -> Self {
        Self(recycle(list))
    }
}

/// The standard library collects in place where the sizes of the elements are the same, and
/// allocates where they are not.
fn recycle<A, B>(mut list: Vec<A>) -> Vec<B> {
    list.clear();
    list.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        let mut list: Vec<(&u8, u64, usize)> = Storage::default().into_list();
        assert_eq!(list.capacity(), 0);
        list.resize(100, (&1, 2, 3));
        let (place, capacity) = (list.as_ptr().addr(), list.capacity());
        let list: Vec<(&str, usize)> = Storage::of(list).into_list();
        assert!(list.is_empty());
        assert_eq!((list.as_ptr().addr(), list.capacity()), (place, capacity));
    }
}
