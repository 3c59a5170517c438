// Package layertar unpacks the layer tars of images into directories, and
// writes the changes of a directory as such a tar.
//
// A layer is a stranger's file. Nothing in it may reach outside the directory
// it is unpacked into, whatever its names, links and attributes say. So every
// entry is made through a descriptor of its parent directory, which was
// reached one component at a time with O_NOFOLLOW from the descriptor of the
// root: no path is ever resolved by the kernel across a link of the layer.
// What cannot be meant honestly is refused with InvalidArgument and the
// entry's name:
//
//   - a component "..", a component over 255 bytes, a name over 4,095 bytes
//     or more than 512 directories deep;
//   - a parent that is a link or a file of the same layer;
//   - a hard link to something that the layer does not hold before it, to a
//     directory, to a whiteout or to itself;
//   - the character device 0:0, which overlayfs takes for a whiteout;
//   - an entry type that the format does not know.
//
// A leading "/" and components "." mean nothing and are left out, as tar
// programs do. Later entries win over earlier ones of the same name.
//
// Whiteouts follow the OCI image specification, "layer.md": a whiteout hides
// what is below the layer and never what is in it, whatever their order.
//
// Extended attributes come from PAX records "SCHILY.xattr.". Those that
// overlayfs keeps for itself (trusted.overlay.*, user.overlay.*) are dropped,
// since a redirect among them would show other parts of the layers below;
// those that the filesystem cannot take are dropped as well. Result tells
// what was dropped and why.
//
// Memory is bounded: a few fixed buffers, one descriptor for each directory
// on the way to the current one, one time for each directory (at most
// 1,048,576 of them), and for Apply one number for each entry. Nothing is
// synced: the caller calls syncfs once, when all is there.
package layertar
