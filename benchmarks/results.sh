#!/usr/bin/env bash
# The runs behind the tables of book/results: benchmarks/results.sh PART...
#
# Parts: embedded, mvtec, kolektor, mnist, fashion, open-set. Rows that are there already
# are skipped, so an interrupted part goes on where it was. Public data are read from
# ADLAB_DATA; WEIGHTS is a file of ResNet-18 for ImageNet, with torchvision's keys. Where
# torchvision can download them, leave WEIGHTS empty.
set -u
cd "$(dirname "$0")/.."
bench() { "${PYTHON:-.venv/bin/python}" -m adlab.bench "$@" || failed=1; }
resnet=(-o backbone=resnet18 ${WEIGHTS:+--weights "$WEIGHTS"})
lite=(-o backbone=efficientnet_lite0) # its weights come with adlab[imagenet]
every=(-o "layers=['layer1', 'layer2', 'layer3']")
failed=0

# The cheapest there is, of the pixels alone.
baselines() {
  for method in mean-grey gaussian knn pca; do
    bench $method "$@"
  done
}

embedded() {
  local sets=(nanofibres --all -d size=64 -d n_train=100)
  baselines "${sets[@]}"
  bench patch-gaussian "${sets[@]}"
  for loss in l2 ssim cw-ssim; do
    bench autoencoder "${sets[@]}" -o "loss=$loss" -o epochs=16
  done
  bench vae "${sets[@]}" -o epochs=16
  bench patch-gmm "${sets[@]}"
  bench patch-dagmm "${sets[@]}"
  bench features-gaussian "${sets[@]}"
  bench features-knn "${sets[@]}"
  bench padim "${sets[@]}"
  bench padim "${sets[@]}" -o backbone=texnet-random
  bench spade "${sets[@]}"
  bench student-teacher "${sets[@]}"
  for term in error variance; do
    bench student-teacher "${sets[@]}" -o term=$term
  done
  bench geotrans "${sets[@]}" -o transformations=8 -o epochs=60
  bench inpainting "${sets[@]}" -o epochs=16
  bench draem "${sets[@]}"
  later "${sets[@]}"
  bench patchcore "${sets[@]}"
  bench segmentation "${sets[@]}"
  bench oc-svm "${sets[@]}"
  bench deep-svdd "${sets[@]}"
}

# The pyramids, the transformer, and what is dear of them last.
later() {
  for method in pyramids vt-adl piade; do
    bench $method "$@"
  done
}

# The networks read 224 pixels, as in the papers; what is trained from nothing sees 128.
mvtec() {
  local bottle=(mvtec-ad --all -d category=bottle)
  local small=("${bottle[@]}" -d size=146 -d crop=128)
  baselines "${bottle[@]}" -d size=36 -d crop=32
  for method in padim features-gaussian features-knn; do
    bench $method "${bottle[@]}" "${resnet[@]}"
    bench $method "${bottle[@]}"
  done
  bench spade "${bottle[@]}" "${resnet[@]}"
  bench spade "${bottle[@]}" "${resnet[@]}" -o n_neighbors=50 --seeds 0
  bench patchcore "${bottle[@]}" "${resnet[@]}" --seeds 0
  bench padim "${bottle[@]}" -o backbone=resnet18-random
  for method in padim features-gaussian features-knn spade student-teacher; do
    bench $method "${bottle[@]}" "${lite[@]}"
  done
  large_images "${small[@]}"
  local whole=(-o epochs=60 -o patch_size=128 -o "widths=(16, 32, 64, 64)" -o n_latent=32)
  for loss in l2 ssim; do # whole bottles, a larger network
    bench autoencoder "${small[@]}" -o "loss=$loss" "${whole[@]}" --seeds 0
  done
  bench vae "${small[@]}" "${whole[@]}" --seeds 0
  for epochs in 12 40; do
    bench inpainting "${small[@]}" -o patch_size=64 -o epochs=$epochs --seeds 0
  done
  bench student-teacher "${bottle[@]}" "${resnet[@]}" "${every[@]}"
  bench student-teacher "${bottle[@]}" "${every[@]}" --seeds 0
  bench student-teacher "${bottle[@]}"
  bench draem "${small[@]}" -o epochs=20
  later "${small[@]}"
  for part in discriminative reconstructive; do
    bench draem "${small[@]}" -o epochs=20 -o networks=$part --seeds 0
  done
}

large_images() {
  bench patch-gaussian "$@"
  for loss in l2 ssim cw-ssim; do
    bench autoencoder "$@" -o "loss=$loss" -o epochs=60
  done
  bench vae "$@" -o epochs=60
}

kolektor() {
  local sdd=(kolektor-sdd --all)
  baselines "${sdd[@]}" -d "size=(80, 32)"
  bench padim "${sdd[@]}" "${resnet[@]}"
  bench padim "${sdd[@]}" "${lite[@]}"
  bench padim "${sdd[@]}" -o backbone=resnet18-random
  bench features-gaussian "${sdd[@]}" "${resnet[@]}"
  bench features-knn "${sdd[@]}" "${resnet[@]}"
  bench spade "${sdd[@]}" "${resnet[@]}" --seeds 0
  bench patchcore "${sdd[@]}" "${resnet[@]}" --seeds 0
  large_images "${sdd[@]}" -d "size=(320, 128)"
  bench inpainting "${sdd[@]}" -d "size=(320, 128)" -o patch_size=64 -o epochs=20 --seeds 0
  bench student-teacher "${sdd[@]}" "${resnet[@]}" "${every[@]}" -o epochs=5 --seeds 0
  bench draem "${sdd[@]}" -d "size=(320, 128)" -o epochs=10
  later "${sdd[@]}" -d "size=(320, 128)" -o epochs=10 --seeds 0
}

one_class() {
  local budget=(--max-train 1500 --max-test 2000)
  local svdd=("${budget[@]}" -o pretrain_epochs=5 -o epochs=15 -o batch_size=50)
  baselines "$1" --all --seeds 0
  bench gmm "$1" --all --seeds 0
  bench oc-svm "$1" --all --seeds 0 --max-train 2000 --max-test 2000
  bench deep-svdd "$1" --all --seeds $2 "${svdd[@]}"
  bench deep-svdd "$1" --all --seeds $2 "${svdd[@]}" -o objective=soft-boundary -o warm_up=5
  bench deep-sad "$1" --all --seeds $2 "${svdd[@]}"
  bench geotrans "$1" --all --seeds 0 --max-train 1000 --max-test 1000 \
    -o transformations=8 -o epochs=60 -o lr=3e-3
  bench autoencoder "$1" --all --seeds 0 "${budget[@]}" -o patch_size=28 -o image_score=mean \
    -o "widths=(8, 16, 32, 32)" -o n_latent=8
  bench dagmm "$1" --all --seeds 0 --max-train 1000 --max-test 2000 -o epochs=30 \
    -o batch_size=250
  bench pyramids "$1" --all --seeds 0 --max-train 1000 --max-test 1000 -o epochs=10
  bench vt-adl "$1" --all --seeds 0 --max-train 1000 --max-test 1000 -o patch_size=7 \
    -o epochs=20
  for share in 0.01 0.1; do
    bench capsules "$1" --all --seeds 0 "${budget[@]}" --labelled $share -o epochs=10
  done
}

mnist() {
  one_class mnist "0 1"
  bench oc-svm mnist --all --seeds 0 --max-train 2000 --max-test 2000 -o gamma=0.06
  bench autoencoder mnist --all --seeds 0 --max-train 1500 --max-test 2000 \
    -o patch_size=28 -o image_score=mean
}
fashion() { one_class fashion-mnist 0; }
open-set() {
  bench open-set mnist --all --seeds 0
  bench open-set wafers --all --seeds 0
}

for part in "$@"; do
  case $part in
    embedded | mvtec | kolektor | mnist | fashion | open-set) "$part" ;;
    *) echo "no such part: $part" >&2; exit 2 ;;
  esac
done
exit $failed
