// Package overlay is the graph driver that composes root filesystems with
// overlayfs. It mounts nothing itself: it says how to.
//
// Below its root directory (package layerstore has the rest):
//
//	layers/NAME/layer.json   what the layer is, and the names of those below it
//	layers/NAME/fs/          the layer in overlayfs's own form: whiteouts are
//	                         character devices 0:0, opaque directories bear
//	                         trusted.overlay.opaque
//	rootfs/ID/rootfs.json    which layer and which targets
//	rootfs/ID/upper/         what the container has written
//	rootfs/ID/work/          overlayfs's own
//	shared/HASH/             a skeleton: the targets that an image may lack
//
// A root filesystem is one mount of type overlay, its lower layers named by
// absolute paths from top to bottom. A skeleton is the lowest of them, so that
// whatever the image has at a target, and its attributes, win; and because it
// lies below the upper directory, diff and commit never show it. A target that
// the image itself has deleted (a whiteout, an opaque directory) cannot be
// seen from below: it is made in the upper directory, as the image describes
// its parents, and remembered, so that Diff leaves it out.
//
// overlayfs does not heed trusted.overlay.opaque on a layer's root: the layers
// below such a layer are left out of the mount instead.
//
// Kernel: lowerdir+ (6.8) names each layer on its own. Without it an exec
// driver joins them with ":", which holds as many as fit into a page.
// Kernels may be built with redirect_dir, metacopy or index on; a diff of the
// upper directory alone would then not be whole, so they are turned off.
package overlay
