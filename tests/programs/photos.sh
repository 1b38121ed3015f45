# Learn the classes of folders of photos, and recognise a new one.
curricula train --data 'folder(size=16, split=80:20)' --data-root photos --model tinycnn --perturb rot:30 \
    --batch-size 4 --epochs 10 -o run
curricula predict run new.jpg --top 1 --format csv
