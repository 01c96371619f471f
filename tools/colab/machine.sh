#!/bin/sh
# A machine of its own for one notebook, thrown away afterwards: everything that is written stays in memory, except on the
# Drive and in the result folder. tools/matrix.py starts it in a mount namespace (`unshare --mount`) with these variables:
# EXCHANGE a folder with machine/, drive/, result/, upload/ and stand-in/, PYTHON Colab's Python.
set -eu
MACHINE=$EXCHANGE/machine
mount -t tmpfs tmpfs "$MACHINE"
mkdir "$MACHINE/written" "$MACHINE/scratch" "$MACHINE/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$MACHINE/written,workdir=$MACHINE/scratch" "$MACHINE/root"
cd "$MACHINE/root"
mount --rbind /proc proc
mount --rbind /dev dev
mkdir -p content mnt/colab
mount --bind "$EXCHANGE" mnt/colab
cp -r mnt/colab/stand-in/google ".$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
export COLAB_DRIVE=/mnt/colab/drive COLAB_UPLOAD=/mnt/colab/upload COLAB_RELEASE_TAG=stand-in
exec chroot . /usr/bin/env -C /content "$PYTHON" /mnt/colab/stand-in/run_notebook.py "/mnt/colab/$1" "$2" /mnt/colab/result
